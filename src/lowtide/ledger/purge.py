"""Deleting what ended long ago, in short transactions between which workers go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select

from lowtide.clock import Clock
from lowtide.ledger import sql
from lowtide.ledger.engine import Database
from lowtide.ledger.tables import ATTEMPTS, BATCHES, OUTBOX, REQUESTS
from lowtide.ledger.transitions import FINAL, RequestState

_ROWS_AT_ONCE = 1_000
_BATCHES_AT_ONCE = 100
_ROW = REQUESTS.c
_BATCH = BATCHES.c


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge did.

    Attributes:
        batches: How many were deleted.
        requests: How many were deleted with them.
        kept: How many batches are as old and stay, as their requests are still referred to.
    """

    batches: int
    requests: int
    kept: int


class PurgeVerbs:
    """The part of the ledger that deletes; see `Ledger`."""

    _db: Database
    _clock: Clock

    def purge(self, before: float) -> Purged:
        """Deletes final batches that came to their end before `before`, epoch seconds.

        Their requests and attempts go with them, and their money is no longer counted. A batch
        stays while the outbox has an entry of it, to tell or for a replay, and while a request
        without an outcome shares one of its lines. It is safe to break off and to run again.
        """
        referred = self._referred()
        batches = requests = kept = 0
        for batch_id in self._old(before):
            if batch_id in referred:
                kept += 1
                continue
            batches += 1
            while (count := self._delete_some(batch_id)) is not None:
                requests += count
        return Purged(batches, requests, kept)

    def _referred(self) -> set[str]:
        """Batches that the outbox names, or whose lines are waited for elsewhere."""
        line = REQUESTS.alias("line").c
        named = select(OUTBOX.c.batch_id).where(OUTBOX.c.batch_id.is_not(None)).distinct()
        waited_for = (
            select(line.batch_id)
            .join(REQUESTS, _ROW.shares == line.custom_id)
            .where(_ROW.shares.is_not(None), _ROW.state == RequestState.RECORDED)
            .distinct()
        )
        with self._db.read() as connection:
            found = set(connection.execute(named).scalars())
            return found | set(connection.execute(waited_for).scalars())

    def _old(self, before: float) -> Iterator[str]:
        ended = func.coalesce(_BATCH.delivered_at, _BATCH.ended_at, _BATCH.recorded_at)
        last = ""
        while True:
            query = (
                select(_BATCH.id)
                .where(_BATCH.state.in_(FINAL), ended < before, _BATCH.id > last)
                .order_by(_BATCH.id)
                .limit(_BATCHES_AT_ONCE)
            )
            with self._db.read() as connection:
                ids: Sequence[str] = connection.execute(query).scalars().all()
            if not ids:
                return
            yield from ids
            last = ids[-1]

    def _delete_some(self, batch_id: str) -> int | None:
        """Deletes some of a batch's requests, and the batch when none is left: then None."""
        some = (
            select(_ROW.custom_id)
            .where(_ROW.batch_id == batch_id)
            .order_by(_ROW.state, _ROW.custom_id)
            .limit(_ROWS_AT_ONCE)
        )
        begun = self._clock.monotonic()
        with self._db.write() as connection:
            ids = connection.execute(some).scalars().all()
            for table in (ATTEMPTS, REQUESTS):
                which = sql.among(self._db, table.c.custom_id, ids)
                connection.execute(delete(table).where(which))
            if not ids:
                connection.execute(delete(BATCHES).where(_BATCH.id == batch_id))
                return None
        # SQLite has one writer at a time, who waits is not in a queue: half of the time is theirs.
        self._clock.sleep(self._clock.monotonic() - begun)
        return len(ids)
