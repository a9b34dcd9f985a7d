"""The verbs that deliver requests: claim, settle, unclaim.

On PostgreSQL each first locks its rows by their key alone and judges them here: its planner
cannot know how many rows of a new batch have no outcome, and guesses plans that read them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, TypeAlias

from msgspec.structs import fields
from sqlalchemy import (
    ARRAY,
    BindParameter,
    Column,
    Connection,
    Select,
    Update,
    bindparam,
    func,
    literal,
    null,
    select,
    update,
)

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
_NEW = "new_"
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
        find, take = _claiming(self._db.sqlite)
        these = sql.one_parameter(self._db, custom_ids)
        with self._db.write() as connection:
            rows = connection.execute(find, {"these": these}).all()
            free = [
                ClaimedRow(custom_id, blob, attempt, bool(may_share), holder is not None)
                for custom_id, blob, attempt, where, state, holder, until, may_share in rows
                if where == batch_id
                and state == RequestState.RECORDED
                and (holder is None or until <= now)
            ]
            these = sql.one_parameter(self._db, [row.custom_id for row in free])
            values = {"these": these, "owner": owner, "until": now + ttl}
            connection.execute(take, values)
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
            if paid:
                write = _write_each if self._db.sqlite else _write_at_once
                write(connection, _columns(paid), self._clock.now())
            told = [message for message in messages if message.custom_id in ours]
            outbox.write(self._db, connection, told, self._clock.now())
        return len(ours)

    def _ours(self, connection: Connection, custom_ids: Collection[str], owner: str) -> set[str]:
        """Those of `custom_ids` that `owner` has claimed and that have no outcome, locked."""
        these = sql.one_parameter(self._db, custom_ids)
        return {
            custom_id
            for custom_id, state, holder in connection.execute(
                _holders(self._db.sqlite), {"these": these}
            ).all()
            if holder == owner and state == RequestState.RECORDED
        }


@cache
def _claiming(sqlite: bool) -> tuple[Select[Any], Update]:  # noqa: FBT001 - the key of the cache
    """What finds requests by `these`, and what claims `these` for an `owner` `until` then."""
    these = sql.among_these(_ROW.custom_id, sqlite=sqlite)
    find = (
        select(_ROW.custom_id, _ROW.blob, _ROW.attempt)
        .add_columns(_ROW.batch_id, _ROW.state, _ROW.claim, _ROW.claim_until)
        .add_columns(_ROW.share_key.is_not(None).label("may_share"))
        .where(these)
        .order_by(_ROW.custom_id)  # one order, so that two claimers do not deadlock
        .with_for_update(skip_locked=True)  # locked: somebody else is claiming it
    )
    take = update(REQUESTS).where(these)
    return find, take.values(claim=bindparam("owner"), claim_until=bindparam("until"))


@cache
def _holders(sqlite: bool) -> Select[Any]:  # noqa: FBT001 - the key of the cache
    """What finds who has claimed `these`, and locks them."""
    return (
        select(_ROW.custom_id, _ROW.state, _ROW.claim)
        .where(sql.among_these(_ROW.custom_id, sqlite=sqlite))
        .order_by(_ROW.custom_id)
        .with_for_update()
    )


Columns: TypeAlias = Mapping[str, Sequence[Any]]
"""Column → its value for each of some outcomes."""


@cache
def _update_each(given: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """SQLite's UPDATE of one row, which has values for `given` alone, and the order of its `?`."""
    statement = (
        update(REQUESTS)
        .where(_ROW.custom_id == bindparam("which"))
        .values({name: _new(name) if name in given else null() for name in _OUTCOME[1:]})
        .values(done_at=bindparam("now"), claim=null(), claim_until=null())
    )
    text, order = sql.sqlite_text(statement)
    return text, tuple(name.removeprefix(_NEW) for name in order)


def _new(column: str) -> BindParameter[Any]:
    # Its own name is SQLAlchemy's to give to a value.
    return bindparam(f"{_NEW}{column}")


def _write_each(connection: Connection, columns: Columns, now: float) -> None:
    """SQLite: one prepared statement, run for each row inside the driver.

    It names the columns that no row has a value in: the driver looks for an adapter for each NULL.
    """
    which, count = columns["custom_id"], len(columns["custom_id"])
    given = {name: each for name, each in columns.items() if each.count(None) < count}
    text, order = _update_each(tuple(given))
    given |= {"which": which, "now": [now] * count}
    connection.exec_driver_sql(text, list(zip(*map(given.__getitem__, order), strict=True)))


def _write_at_once(connection: Connection, columns: Columns, now: float) -> None:
    """PostgreSQL: one statement that takes each column as an array."""
    found = [_ROW[name] for name in columns]
    arrays = [
        literal(list(values), ARRAY(column.type))
        for column, values in zip(found, columns.values(), strict=True)
    ]
    new = (
        func.unnest(*arrays)
        .table_valued(*(Column(column.name, column.type) for column in found))
        .render_derived(name="new")
    )
    statement = (
        update(REQUESTS)
        .where(_ROW.custom_id == new.c.custom_id)
        .values({name: new.c[name] for name in _OUTCOME[1:]})
        .values(done_at=now, **_UNCLAIMED)
    )
    connection.execute(statement)


def _columns(outcomes: Iterable[Outcome]) -> Columns:
    """The values as every database takes them: a provider's texts and numbers can be anything."""
    columns = zip(*map(_values, outcomes), strict=True)
    return {
        name: _each_once(clean, values)
        for name, clean, values in zip(_OUTCOME, _CLEANERS, columns, strict=True)
    }


def _each_once(clean: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    """The cleaned values: most columns have few that differ."""
    known = {value: None if value is None else clean(value) for value in set(values)}
    return [known[value] for value in values]


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
