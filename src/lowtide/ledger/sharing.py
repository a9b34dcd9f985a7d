"""Shared lines: requests that are the same wait for one line of one batch, which is paid once.

Each has a row of its own. `share_key` says which are the same. One of them gives the line its
name; the others have that name in `shares` and wait in the same batch, wherever it goes. The
line is there for as long as one of them has no outcome: that may be any of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, bindparam, func, or_, select, update

from lowtide.clock import Clock
from lowtide.ledger import sql
from lowtide.ledger.engine import Database
from lowtide.ledger.rows import NewRequest, Outcome
from lowtide.ledger.tables import BATCHES, REQUESTS
from lowtide.ledger.transitions import BatchState, RequestState

_ROW = REQUESTS.c
# PostgreSQL advisory locks, "lowsha" and "lowpay": who shares, and who pays, is decided by one
# transaction at a time.
_SHARING = 0x6C6F77736861
_PAYING = 0x6C6F77706179
# The end of the custom_id of a task's first request.
_FIRST = ".0.0"
_ENDED = frozenset({BatchState.ENDED, BatchState.FETCHED})
SHARED = "shared"
"""The tier of an answer that another request of the same line pays."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that somebody waits for.

    Attributes:
        name: Its custom_id in the batch's file.
        batch_id: The batch that it is in.
        attempt: How often it was sent, this time included.
        ended: Whether the provider has done with its batch, so that its answer may be there.
    """

    name: str
    batch_id: str
    attempt: int
    ended: bool = False

    def takes(self, custom_id: str) -> bool:
        """Whether a request may wait for this line.

        One that is made because of an answer, as by a retry, is not to get that answer again.
        """
        return not self.ended or custom_id.endswith(_FIRST)


class SharingVerbs:
    """The part of the ledger that shares lines; see `Ledger`."""

    _db: Database
    _clock: Clock

    def join(self, rows: Sequence[NewRequest]) -> dict[str, str | None]:
        """Records those requests that can wait for a line which is on its way already.

        Doing it again writes nothing.

        Args:
            rows: Requests with a `share_key`.

        Returns:
            custom_id → the batch that it waits in, None when it has its outcome. Left out are
            those that nobody waits for: they are to have a line of their own.
        """
        keys = {str(row.share_key) for row in rows}
        ids = [row.custom_id for row in rows]
        waited_for = _same(self._db, keys).limit(1)
        known = select(_ROW.custom_id, _ROW.batch_id, _ROW.state).where(
            sql.among(self._db, _ROW.custom_id, ids)
        )
        with self._db.read() as connection:
            found = connection.execute(known).all()
            if not found and connection.execute(waited_for).first() is None:
                return {}
        with self._db.write() as connection:
            _one_at_a_time(self._db, connection, _SHARING)
            lines = _open_lines(self._db, connection, keys)
            now = self._clock.now()
            values = [
                _follower(row, line, now)
                for row in rows
                if (line := lines.get(str(row.share_key))) and line.takes(row.custom_id)
            ]
            if values:
                connection.execute(sql.insert_requests(self._db), values)
            found = connection.execute(known).all()
        return {
            row.custom_id: row.batch_id if row.state == RequestState.RECORDED else None
            for row in found
        }

    def followers(
        self, batch_id: str, names: Collection[str], after: str = "", limit: int = 500
    ) -> dict[str, str]:
        """custom_id → line of requests without an outcome that share one of the lines `names`.

        Those that gave a line its name are not among them. By custom_id, from the one after
        `after`.
        """
        query = (
            select(_ROW.custom_id, _ROW.shares)
            .where(_shares(self._db, batch_id, names), _ROW.custom_id > after)
            .order_by(_ROW.custom_id)
            .limit(limit)
        )
        with self._db.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def task_ids(self, custom_ids: Collection[str]) -> dict[str, str]:
        """custom_id → id of the Celery task that made the request."""
        query = select(_ROW.custom_id, _ROW.task_id).where(
            sql.among(self._db, _ROW.custom_id, custom_ids)
        )
        with self._db.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def batches_of(self, custom_ids: Collection[str]) -> dict[str, str]:
        """custom_id → batch of those of the requests that have no outcome."""
        query = select(_ROW.custom_id, _ROW.batch_id).where(
            sql.among(self._db, _ROW.custom_id, custom_ids), _ROW.state == RequestState.RECORDED
        )
        with self._db.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}


def settle_in(
    db: Database, connection: Connection, batch_id: str, keys: Collection[str]
) -> dict[str, str]:
    """Gives the new rows of a batch their lines, in the transaction that recorded them.

    A row whose like is waited for elsewhere goes into that batch. Of those that are the same
    here, the first gives the line its name.

    Args:
        db: The database.
        connection: The transaction.
        batch_id: The batch with the new rows.
        keys: Their keys.

    Returns:
        custom_id → batch of those that wait elsewhere.
    """
    _one_at_a_time(db, connection, _SHARING)
    lines = _open_lines(db, connection, keys, apart_from=batch_id)
    new = (
        select(_ROW.custom_id, _ROW.share_key)
        .where(_ROW.batch_id == batch_id, _ROW.share_key.is_not(None))
        .order_by(_ROW.custom_id)
    )
    joined: dict[str, str] = {}
    changes = []
    for custom_id, key in connection.execute(new).all():
        line = lines.get(key)
        if line is None or not line.takes(custom_id):
            lines[key] = Line(custom_id, batch_id, 1)
            continue
        if line.batch_id != batch_id:
            joined[custom_id] = line.batch_id
        changes.append(
            {
                "which": custom_id,
                "line": line.name,
                "where": line.batch_id,
                "sent": line.attempt,
            }
        )
    if changes:
        connection.execute(_SHARE, changes)
    return joined


_SHARE = (
    update(REQUESTS)
    .where(_ROW.custom_id == bindparam("which"))
    .values(
        shares=bindparam("line"), batch_id=bindparam("where"), attempt=bindparam("sent"), tokens=0
    )
)


def with_followers(
    db: Database, connection: Connection, batch_id: str, names: Collection[str]
) -> set[str]:
    """The requests `names`, and all without an outcome that share their lines."""
    lines = select(_ROW.shares).where(
        _ROW.shares.is_not(None), sql.among(db, _ROW.custom_id, names)
    )
    of = {*names, *connection.execute(lines).scalars()}
    query = select(_ROW.custom_id).where(_shares(db, batch_id, of))
    return {*of, *connection.execute(query).scalars()}


def paid_once(
    db: Database,
    connection: Connection,
    outcomes: Iterable[Outcome],
    sharing: Collection[str],
) -> list[Outcome]:
    """The outcomes with the price of each shared answer on one of its requests alone.

    The one that gave the line its name pays, if it has no other outcome by then; the others cost
    nothing. Nobody pays for an answer that is paid.

    Args:
        db: The database.
        connection: The transaction; the rows of the outcomes are locked by it.
        outcomes: What is about to be written.
        sharing: custom_ids of those that may share their line.
    """
    given = {each.custom_id: each for each in outcomes}
    ids = [name for name in given if name in sharing and given[name].tier == "batch"]
    if not ids:
        return list(given.values())
    _one_at_a_time(db, connection, _PAYING)
    query = select(_ROW.custom_id, _ROW.shares, _ROW.batch_id).where(
        sql.among(db, _ROW.custom_id, ids)
    )
    lines = {row[0]: (row[1] or row[0], row[2]) for row in connection.execute(query)}
    paid = _paid(db, connection, {name for name, _ in lines.values()})
    for custom_id in sorted(lines, key=lambda each: (lines[each][0] != each, each)):
        if lines[custom_id] in paid:
            given[custom_id] = _free(given[custom_id])
        paid.add(lines[custom_id])
    return list(given.values())


def _paid(db: Database, connection: Connection, names: Collection[str]) -> set[tuple[str, str]]:
    """(line, batch) of those lines that a request has paid for."""
    query = select(_ROW.custom_id, _ROW.shares, _ROW.batch_id).where(
        or_(
            sql.among(db, _ROW.custom_id, names),
            _ROW.shares.is_not(None) & sql.among(db, _ROW.shares, names),
        ),
        _ROW.tier == "batch",
    )
    return {(row[1] or row[0], row[2]) for row in connection.execute(query)}


def _free(outcome: Outcome) -> Outcome:
    return replace(
        outcome,
        input_tokens=None,
        cached_tokens=None,
        output_tokens=None,
        reasoning_tokens=None,
        cost=0.0,
        full_price=0.0,
        tier=SHARED,
    )


def _shares(db: Database, batch_id: str, names: Collection[str]) -> Any:
    return (
        _ROW.shares.is_not(None)
        & sql.among(db, _ROW.shares, names)
        & (_ROW.batch_id == batch_id)
        & (_ROW.state == RequestState.RECORDED)
    )


def _same(db: Database, keys: Collection[str]) -> Any:
    """Selects requests without an outcome that have one of `keys`."""
    columns = (_ROW.custom_id, _ROW.share_key, _ROW.shares, _ROW.batch_id, _ROW.attempt)
    return (
        select(*columns, BATCHES.c.state)
        .join(BATCHES, BATCHES.c.id == _ROW.batch_id)
        .where(
            _ROW.share_key.is_not(None),
            sql.among(db, _ROW.share_key, keys),
            _ROW.state == RequestState.RECORDED,
        )
    )


def _open_lines(
    db: Database, connection: Connection, keys: Collection[str], apart_from: str = ""
) -> dict[str, Line]:
    """share_key → the line that is waited for; for the rest of the transaction it stays so.

    Where there are two, as after a retry, the one without an answer yet.

    One request of each line is locked: as long as it has no outcome its batch is not closed, and
    it is not sent again elsewhere. Its batch is locked first, as by those who move requests.
    """
    query = _same(db, keys).where(_ROW.batch_id != apart_from).order_by(_ROW.custom_id.desc())
    while True:
        rows = connection.execute(query).all()
        found = {row.share_key: row for row in rows if row.state in _ENDED}
        found |= {row.share_key: row for row in rows if row.state not in _ENDED}
        if not found or db.sqlite:  # SQLite: nobody else writes now
            break
        held = sorted({row.batch_id for row in found.values()})
        connection.execute(
            select(BATCHES.c.id)
            .where(sql.among(db, BATCHES.c.id, held))
            .order_by(BATCHES.c.id)
            .with_for_update()
        )
        which = {row.custom_id: row.batch_id for row in found.values()}
        still = connection.execute(
            select(_ROW.custom_id, _ROW.batch_id)
            .where(sql.among(db, _ROW.custom_id, which), _ROW.state == RequestState.RECORDED)
            .order_by(_ROW.custom_id)
            .with_for_update()
        )
        if {row[0]: row[1] for row in still} == which:
            break
    return {
        key: Line(row.shares or row.custom_id, row.batch_id, row.attempt, row.state in _ENDED)
        for key, row in found.items()
    }


def _follower(row: NewRequest, line: Line, now: float) -> dict[str, Any]:
    return {
        "custom_id": row.custom_id,
        "task_id": row.task_id,
        "task": row.task,
        "batch_id": line.batch_id,
        "state": RequestState.RECORDED.value,
        "attempt": line.attempt,
        # The line's tokens count once against limits.
        "tokens": 0,
        "recorded_at": now,
        "deadline": row.deadline,
        "escalate_at": row.escalate_at,
        "tenant": row.tenant,
        "version": row.version,
        "blob": row.blob,
        "share_key": row.share_key,
        "shares": line.name,
    }


def _one_at_a_time(db: Database, connection: Connection, lock: int) -> None:
    """Waits for the lock, which is held until the transaction ends; SQLite has one writer."""
    if not db.sqlite:
        connection.execute(select(func.pg_advisory_xact_lock(lock)))
