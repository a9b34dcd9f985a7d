"""The verbs that deliver requests: claim, settle, unclaim.

On PostgreSQL each first locks its rows by their key alone and judges them here: its planner
cannot know how many rows of a new batch have no outcome, and guesses plans that read them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import cache
from operator import attrgetter, itemgetter
from typing import Any

from msgspec.structs import fields
from sqlalchemy import ARRAY, Column, Connection, bindparam, func, literal, null, select, update

from lowtide.clock import Clock
from lowtide.ledger import outbox, sharing, sql, texts
from lowtide.ledger.engine import Database
from lowtide.ledger.outbox import NewMessage
from lowtide.ledger.rows import ClaimedRow, Outcome
from lowtide.ledger.tables import REQUESTS
from lowtide.ledger.transitions import RequestState, check_outcome

_ROW = REQUESTS.c
_OUTCOME = tuple(field.name for field in fields(Outcome))
_LARGEST_COUNT = 2**31 - 1
_UNCLAIMED: dict[str, Any] = {"claim": None, "claim_until": None}


class ClaimVerbs:
    """The part of the ledger that is about delivery; see `Ledger`."""

    _db: Database
    _clock: Clock

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
            Those that have no outcome and no running claim, by custom_id.
        """
        now = self._clock.now()
        query = (
            select(_ROW.custom_id, _ROW.blob, _ROW.attempt)
            .add_columns(_ROW.batch_id, _ROW.state, _ROW.claim, _ROW.claim_until)
            .add_columns(_ROW.share_key.is_not(None).label("may_share"))
            .where(sql.among(self._db, _ROW.custom_id, custom_ids))
            .order_by(_ROW.custom_id)  # one order, so that two claimers do not deadlock
            .with_for_update(skip_locked=True)  # locked: somebody else is claiming it
        )
        with self._db.write() as connection:
            rows = connection.execute(query).all()
            free = [
                ClaimedRow(custom_id, blob, attempt, bool(may_share), holder is not None)
                for custom_id, blob, attempt, where, state, holder, until, may_share in rows
                if where == batch_id
                and state == RequestState.RECORDED
                and (holder is None or until <= now)
            ]
            which = sql.among(self._db, _ROW.custom_id, [row.custom_id for row in free])
            taken = update(REQUESTS).where(which)
            connection.execute(taken.values(claim=owner, claim_until=now + ttl))
        return free

    def extend(self, custom_ids: Collection[str], owner: str, ttl: float) -> int:
        """Lets claims of `owner` run another `ttl` seconds from now; returns how many."""
        with self._db.write() as connection:
            ours = self._ours(connection, custom_ids, owner)
            longer = update(REQUESTS).where(sql.among(self._db, _ROW.custom_id, ours))
            connection.execute(longer.values(claim_until=self._clock.now() + ttl))
        return len(ours)

    def unclaim(self, custom_ids: Collection[str], owner: str) -> int:
        """Gives claims back, so that another can deliver at once; returns how many."""
        with self._db.write() as connection:
            ours = self._ours(connection, custom_ids, owner)
            given = update(REQUESTS).where(sql.among(self._db, _ROW.custom_id, ours))
            connection.execute(given.values(_UNCLAIMED))
        return len(ours)

    def settle(
        self,
        owner: str,
        outcomes: Sequence[Outcome],
        sharing_line: Collection[str] = (),
        messages: Sequence[NewMessage] = (),
    ) -> int:
        """Writes outcomes of requests that `owner` has claimed, and ends the claims.

        Args:
            owner: Who claimed them.
            outcomes: What became of them.
            sharing_line: custom_ids of those that may share their line: of each line one pays.
            messages: What destinations are to be told of them; into the outbox in the same
                transaction, for those that are written.

        Returns:
            How many were written. Requests that have an outcome already, or that somebody else
            has claimed since, are left alone; of two outcomes for one request the first counts.

        Raises:
            StateError: The state of an outcome is none.
        """
        for outcome in outcomes:
            check_outcome(outcome.custom_id, outcome.state)
        with self._db.write() as connection:
            ours = self._ours(connection, {each.custom_id for each in outcomes}, owner)
            first = {each.custom_id: each for each in reversed(outcomes) if each.custom_id in ours}
            paid = sharing.paid_once(self._db, connection, first.values(), sharing_line)
            rows = [_clean(outcome) for outcome in paid]
            if rows:
                write = _write_each if self._db.sqlite else _write_at_once
                write(connection, rows, self._clock.now())
            told = [message for message in messages if message.custom_id in ours]
            outbox.write(self._db, connection, told, self._clock.now())
        return len(ours)

    def _ours(self, connection: Connection, custom_ids: Collection[str], owner: str) -> set[str]:
        """Those of `custom_ids` that `owner` has claimed and that have no outcome, locked."""
        query = (
            select(_ROW.custom_id, _ROW.state, _ROW.claim)
            .where(sql.among(self._db, _ROW.custom_id, custom_ids))
            .order_by(_ROW.custom_id)
            .with_for_update()
        )
        return {
            custom_id
            for custom_id, state, holder in connection.execute(query).all()
            if holder == owner and state == RequestState.RECORDED
        }


@cache
def _update_each() -> tuple[str, Callable[[tuple[Any, ...]], tuple[Any, ...]]]:
    """SQLite's UPDATE of one row, and what puts (*outcome, now) into the order of its `?`."""
    statement = (
        update(REQUESTS)
        .where(_ROW.custom_id == bindparam("which"))
        .values({name: bindparam(f"new_{name}") for name in _OUTCOME[1:]})
        .values(done_at=bindparam("now"), claim=null(), claim_until=null())
    )
    names = ("which", *(f"new_{name}" for name in _OUTCOME[1:]), "now")
    text, order = sql.sqlite_text(statement)
    return text, itemgetter(*map(names.index, order))


def _write_each(connection: Connection, rows: list[tuple[Any, ...]], now: float) -> None:
    """SQLite: one prepared statement, run for each row inside the driver."""
    text, ordered = _update_each()
    connection.exec_driver_sql(text, [ordered((*row, now)) for row in rows])


def _write_at_once(connection: Connection, rows: list[tuple[Any, ...]], now: float) -> None:
    """PostgreSQL: one statement that takes each column as an array."""
    columns = [_ROW[name] for name in _OUTCOME]
    arrays = [
        literal(list(values), ARRAY(column.type))
        for column, values in zip(columns, zip(*rows, strict=True), strict=True)
    ]
    new = (
        func.unnest(*arrays)
        .table_valued(*(Column(column.name, column.type) for column in columns))
        .render_derived(name="new")
    )
    statement = (
        update(REQUESTS)
        .where(_ROW.custom_id == new.c.custom_id)
        .values({name: new.c[name] for name in _OUTCOME[1:]})
        .values(done_at=now, **_UNCLAIMED)
    )
    connection.execute(statement)


def _clean(outcome: Outcome) -> tuple[Any, ...]:
    """The values as every database takes them: a provider's texts and numbers can be anything."""
    values = zip(_CLEANERS, _values(outcome), strict=True)
    return tuple([None if value is None else clean(value) for clean, value in values])


_values = attrgetter(*_OUTCOME)


def _clean_count(value: float) -> int | None:
    if type(value) is int and 0 <= value <= _LARGEST_COUNT:
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return int(max(-_LARGEST_COUNT, min(value, _LARGEST_COUNT)))


def _clean_money(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


_BY_TYPE: dict[type, Callable[[Any], Any]] = {
    str: texts.clean,
    int: _clean_count,
    float: _clean_money,
}
_CLEANERS = tuple(_BY_TYPE[_ROW[name].type.python_type] for name in _OUTCOME)
