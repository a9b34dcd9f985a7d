"""The verb that takes a sealed buffer into the ledger, in bulk."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, select, update

from lowtide.clock import Clock
from lowtide.ledger import sharing, sql
from lowtide.ledger.batches import count_rows
from lowtide.ledger.engine import Database
from lowtide.ledger.rows import NewBatch, NewRequest, Recorded
from lowtide.ledger.tables import BATCHES, REQUESTS
from lowtide.ledger.transitions import BatchState, RequestState

_CHUNK = 250  # rows that pass through the processor's caches together
_COLUMNS = (
    "custom_id",
    "task_id",
    "task",
    "batch_id",
    "state",
    "attempt",
    "tokens",
    "recorded_at",
    "deadline",
    "escalate_at",
    "tenant",
    "version",
    "blob",
    "share_key",
)
_OPTIONAL = ("deadline", "escalate_at", "tenant", "share_key")
_ROW = REQUESTS.c


class RecordVerbs:
    """The part of the ledger that takes batches in; see `Ledger`."""

    _db: Database
    _clock: Clock

    def record(self, batch: NewBatch, rows: Iterable[NewRequest]) -> Recorded:
        """Writes a batch and all of its requests: all of them or nothing.

        Doing it again writes nothing. A request whose custom_id the ledger knows from another
        batch, in whatever state, is refused: it is sent, or was answered, there. Requests that
        are the same as one that is waited for share its line; see `sharing`. A batch that is
        empty then is CANCELLED.

        Args:
            batch: The batch.
            rows: Its requests; read in chunks, never held as a whole.
        """
        now = self._clock.now()
        with self._db.write() as connection:
            if not self._insert_batch(connection, batch, now):
                return Recorded(0, (), new=False)
            keys: set[str] = set()
            values = _values(batch, rows, now, keys)
            if self._db.sqlite:
                refused = _insert_chunks(connection, batch.id, values)
            else:
                refused = _copy(connection, batch.id, values)
            joined = sharing.settle_in(self._db, connection, batch.id, keys) if keys else {}
            added = count_rows(connection, batch.id)
            if added == 0:
                empty = update(BATCHES).where(BATCHES.c.id == batch.id)
                connection.execute(empty.values(state=BatchState.CANCELLED, ended_at=now))
            return Recorded(added, refused, new=True, joined=joined)

    def _insert_batch(self, connection: Connection, batch: NewBatch, now: float) -> bool:
        statement = sql.insert_batch(self._db).values(
            id=batch.id,
            lane=batch.lane.key,
            account=batch.lane.account,
            endpoint=batch.lane.endpoint,
            model=_clean(batch.lane.model),
            state=BatchState.RECORDED,
            requests=0,
            bytes=batch.bytes,
            tokens=0,
            sealed_at=batch.sealed_at,
            recorded_at=now,
            next_at=batch.next_at,
            reason=batch.reason,
            fence=0,
            version=batch.version,
        )
        return connection.execute(statement).one_or_none() is not None


def _values(
    batch: NewBatch, rows: Iterable[NewRequest], now: float, keys: set[str]
) -> Iterator[tuple[Any, ...]]:
    """The rows as they are inserted; the keys of those that share go into `keys`."""
    state = RequestState.RECORDED.value
    for row in rows:
        if row.share_key is not None:
            keys.add(row.share_key)
        yield (
            _clean(row.custom_id),
            _clean(row.task_id),
            _clean(row.task),
            batch.id,
            state,
            1,
            row.tokens,
            now,
            row.deadline,
            row.escalate_at,
            row.tenant and _clean(row.tenant),
            row.version,
            row.blob,
            row.share_key,
        )


def _clean(text: str) -> str:
    """What PostgreSQL takes: one row with a NUL character would keep its whole batch out."""
    return text.replace("\0", "") if "\0" in text else text


def _insert_chunks(
    connection: Connection, batch_id: str, values: Iterator[tuple[Any, ...]]
) -> tuple[str, ...]:
    """SQLite: the driver's own bulk insert. Returns the custom_ids that were refused."""
    refused: list[str] = []
    while chunk := list(itertools.islice(values, _CHUNK)):
        statement, rows = _told(chunk)
        if connection.exec_driver_sql(statement, rows).rowcount < len(chunk):
            ids = {row[0] for row in chunk}
            query = select(_ROW.custom_id).where(_ROW.custom_id.in_(ids), _ROW.batch_id != batch_id)
            refused += connection.execute(query).scalars()
    return tuple(refused)


def _told(chunk: list[tuple[Any, ...]]) -> tuple[str, list[tuple[Any, ...]]]:
    """The INSERT for some rows, and what it takes of them.

    A column that none of them has is left out: the driver looks for an adapter for each NULL, and
    four of them take a third as long as all that SQLite does with the row.
    """
    columns = dict(zip(_COLUMNS, zip(*chunk, strict=True), strict=True))
    for name in _OPTIONAL:
        if columns[name].count(None) == len(chunk):
            del columns[name]
    return sql.sqlite_insert_rows(tuple(columns)), list(zip(*columns.values(), strict=True))


def _copy(
    connection: Connection, batch_id: str, values: Iterator[tuple[Any, ...]]
) -> tuple[str, ...]:
    """PostgreSQL: COPY into a table of this transaction, and what is new from there into the
    real one. Returns the custom_ids that were refused.
    """
    incoming = sql.incoming_table(_COLUMNS)
    incoming.create(connection)
    sql.copy_rows(connection, incoming, values)
    connection.execute(sql.insert_new(incoming, _COLUMNS))
    theirs = select(_ROW.custom_id).where(
        _ROW.custom_id == incoming.c.custom_id, _ROW.batch_id != batch_id
    )
    return tuple(connection.execute(theirs).scalars())
