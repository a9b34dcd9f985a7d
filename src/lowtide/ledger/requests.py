"""The verbs that change requests: record, claim, settle; and the queries for requests."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    and_,
    bindparam,
    cast,
    func,
    literal,
    or_,
    select,
    update,
)

from lowtide.clock import Clock
from lowtide.ledger import sql
from lowtide.ledger.batches import unsettled
from lowtide.ledger.engine import Database
from lowtide.ledger.rows import ClaimedRow, Outcome, RequestRow
from lowtide.ledger.tables import REQUESTS
from lowtide.ledger.transitions import RequestState, check_outcome

_ROW = REQUESTS.c
_NAMES = [field.name for field in fields(RequestRow)]
_COLUMNS = [REQUESTS.c[name] for name in _NAMES]
_OUTCOME = [REQUESTS.c[field.name] for field in fields(Outcome)]
_LONGEST_TEXT = 2_000
_LARGEST_COUNT = 2**31 - 1


class RequestVerbs:
    """The part of the ledger that is about requests; see `Ledger`."""

    _db: Database
    _clock: Clock

    def lines(self, batch_id: str, chunk: int = 1000) -> Iterator[list[tuple[str, bytes]]]:
        """The (custom_id, blob) of all requests of a batch that have no outcome.

        In lists of up to `chunk`, by custom_id, each from a transaction of its own.
        """
        last = ""
        while True:
            query = (
                select(_ROW.custom_id, _ROW.blob)
                .where(unsettled(batch_id), _ROW.custom_id > last)
                .order_by(_ROW.custom_id)
                .limit(chunk)
            )
            with self._db.read() as connection:
                rows = [(row[0], row[1]) for row in connection.execute(query)]
            if rows:
                last = rows[-1][0]
                yield rows
            if len(rows) < chunk:
                return

    def claim(
        self, batch_id: str, custom_ids: Collection[str], owner: str, ttl: float
    ) -> list[ClaimedRow]:
        """Takes the sole right to deliver requests.

        Args:
            batch_id: The batch that they must be in.
            custom_ids: Which.
            owner: Who claims: the fencing token that `settle` asks for, so it must be unique to
                this run of the step. A claim of the same owner that still runs counts too.
            ttl: Seconds after which another may claim what has no outcome.

        Returns:
            Those that have no outcome and no running claim, in any order.
        """
        now = self._clock.now()
        free = or_(_ROW.claim.is_(None), _ROW.claim_until <= now)
        which = (
            select(_ROW.custom_id)
            .where(sql.among(self._db, _ROW.custom_id, custom_ids), unsettled(batch_id), free)
            .order_by(_ROW.custom_id)
            .with_for_update(skip_locked=True)  # locked: somebody else is claiming it
        )
        claimed = (
            update(REQUESTS)
            .where(_ROW.custom_id.in_(which))
            .values(claim=owner, claim_until=now + ttl)
            .returning(_ROW.custom_id, _ROW.blob, _ROW.attempt)
        )
        with self._db.write() as connection:
            return [ClaimedRow(*row) for row in connection.execute(claimed)]

    def unclaim(self, custom_ids: Collection[str], owner: str) -> int:
        """Gives claims back, so that another can deliver at once; returns how many."""
        given = (
            update(REQUESTS)
            .where(
                sql.among(self._db, _ROW.custom_id, custom_ids),
                _ROW.claim == owner,
                _ROW.state == RequestState.RECORDED,
            )
            .values(claim=None, claim_until=None)
        )
        with self._db.write() as connection:
            return connection.execute(given).rowcount

    def settle(self, owner: str, outcomes: Sequence[Outcome]) -> int:
        """Writes outcomes of requests that `owner` has claimed.

        Returns:
            How many were written; requests that have an outcome already, or that somebody else
            has claimed since, are left alone.

        Raises:
            StateError: The state of an outcome is none.
        """
        for outcome in outcomes:
            check_outcome(outcome.custom_id, outcome.state)
        if not outcomes:
            return 0
        rows = [_clean(outcome) for outcome in outcomes]
        with self._db.write() as connection:
            if self._db.sqlite:
                return _settle_each(connection, owner, rows, self._clock.now())
            return _settle_at_once(connection, owner, rows, self._clock.now())

    def undelivered(self, batch_id: str) -> int:
        """How many requests of a batch have no outcome."""
        query = select(func.count()).where(unsettled(batch_id))
        with self._db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def attempt(self, batch_id: str) -> int:
        """How often the requests of a batch were sent, this time included, counted from 1.

        It is the same for all of them: those that are sent again share a new batch.
        """
        query = select(func.max(_ROW.attempt)).where(_ROW.batch_id == batch_id)
        with self._db.read() as connection:
            return connection.execute(query).scalar_one() or 1

    def attempt(self, batch_id: str) -> int:
        """How often the requests of a batch that have no outcome are sent with it, counted from
        1: the highest of them; 1 if there are none.
        """
        query = select(func.coalesce(func.max(_ROW.attempt), 1)).where(unsettled(batch_id))
        with self._db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def ids(self, batch_id: str) -> set[str]:
        """The custom_ids of a batch's requests that have no outcome."""
        query = select(_ROW.custom_id).where(unsettled(batch_id))
        with self._db.read() as connection:
            return set(connection.execute(query).scalars())

    def task(self, task_id: str) -> list[RequestRow]:
        """All requests of one Celery task, in the order in which they were recorded."""
        query = (
            select(*_COLUMNS)
            .where(_ROW.task_id == task_id)
            .order_by(_ROW.recorded_at, _ROW.custom_id)
        )
        with self._db.read() as connection:
            return [_request_row(row) for row in connection.execute(query)]


def _settle_each(
    connection: Connection, owner: str, rows: list[tuple[Any, ...]], now: float
) -> int:
    """SQLite: one prepared statement, run for each row inside the driver."""
    columns = _OUTCOME[1:]
    statement = (
        update(REQUESTS)
        .where(_ours(bindparam("owner")), _ROW.custom_id == bindparam("which"))
        .values({column: bindparam(f"new_{column.name}") for column in columns})
        .values(done_at=bindparam("now"), claim=None, claim_until=None)
    )
    names = ["which", *(f"new_{column.name}" for column in columns)]
    common = {"owner": owner, "now": now}
    return connection.execute(
        statement, [dict(zip(names, row, strict=True)) | common for row in rows]
    ).rowcount


def _settle_at_once(
    connection: Connection, owner: str, rows: list[tuple[Any, ...]], now: float
) -> int:
    """PostgreSQL: one statement that takes each column as an array."""
    arrays = [
        cast(literal(list(values), ARRAY(column.type)), ARRAY(column.type))
        for column, values in zip(_OUTCOME, zip(*rows, strict=True), strict=True)
    ]
    new = (
        func.unnest(*arrays)
        .table_valued(*(Column(column.name, column.type) for column in _OUTCOME))
        .render_derived(name="new")
    )
    statement = (
        update(REQUESTS)
        .where(_ours(literal(owner)), _ROW.custom_id == new.c.custom_id)
        .values({column: new.c[column.name] for column in _OUTCOME[1:]})
        .values(done_at=now, claim=None, claim_until=None)
    )
    return connection.execute(statement).rowcount


def _ours(owner: ColumnElement[str]) -> ColumnElement[bool]:
    return and_(_ROW.claim == owner, _ROW.state == RequestState.RECORDED)


def _clean(outcome: Outcome) -> tuple[Any, ...]:
    """The values as every database takes them: a provider's texts and counts can be anything."""
    return tuple(_clean_value(getattr(outcome, column.name)) for column in _OUTCOME)


def _clean_value(value: Any) -> Any:
    if type(value) is str:
        if value.isascii() and len(value) <= _LONGEST_TEXT and "\0" not in value:
            return value
        text = value[:_LONGEST_TEXT].replace("\0", "")
        return text.encode("utf-8", "replace").decode()
    if type(value) is int:
        return max(-_LARGEST_COUNT, min(value, _LARGEST_COUNT))
    return value


def _request_row(row: Any) -> RequestRow:
    values = dict(zip(_NAMES, row, strict=True))
    values["state"] = RequestState(values["state"])
    return RequestRow(**values)
