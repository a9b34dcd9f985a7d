"""Answers that were paid beside a batch and that their tasks do not have yet.

Each is an entry of the outbox that nobody is told of: so an answer is asked for, and paid, once,
whatever keeps it from its task.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import bindparam, delete, func, select, update

from lowtide.carried import OWN
from lowtide.clock import Clock
from lowtide.ledger import outbox, sql
from lowtide.ledger.engine import Database
from lowtide.ledger.outbox import NewMessage
from lowtide.ledger.tables import OUTBOX, REQUESTS
from lowtide.ledger.transitions import RequestState

_PAID = OWN + "paid"
_FASTER = ("flex", "standard")
_ENTRY = OUTBOX.c
_ROW = REQUESTS.c


class PaidVerbs:
    """The part of the ledger that keeps paid answers; see `Ledger`."""

    _db: Database
    _clock: Clock

    def keep_paid(self, batch_id: str, blobs: Mapping[str, bytes]) -> None:
        """Keeps paid answers, custom_id → blob, of requests in a batch; the first one counts."""
        kept = [NewMessage(_PAID, name, blob, batch_id) for name, blob in blobs.items()]
        with self._db.write() as connection:
            outbox.write(self._db, connection, kept, self._clock.now())

    def paid(self, custom_ids: Collection[str]) -> dict[str, bytes]:
        """custom_id → blob of those of the requests whose answer is paid and kept."""
        query = select(_ENTRY.custom_id, _ENTRY.blob).where(
            _ENTRY.destination == _PAID, sql.among(self._db, _ENTRY.custom_id, custom_ids)
        )
        with self._db.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def paid_and_over(self) -> dict[str, bytes]:
        """custom_id → blob of kept answers whose requests have an outcome, theirs or another."""
        query = (
            select(_ENTRY.custom_id, _ENTRY.blob)
            .join(REQUESTS, _ROW.custom_id == _ENTRY.custom_id)
            .where(_ENTRY.destination == _PAID, _ROW.state != RequestState.RECORDED)
        )
        with self._db.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def forget_paid(self, costs: Mapping[str, float | None]) -> None:
        """Lets kept answers of requests with an outcome go; each that was for nothing is wasted.

        Args:
            costs: custom_id → USD that the answer cost; None counts as nothing.
        """
        if not costs:
            return
        gone = (
            delete(OUTBOX)
            .where(_ENTRY.destination == _PAID, sql.among(self._db, _ENTRY.custom_id, costs))
            .returning(_ENTRY.custom_id)
        )
        wasted = (
            update(REQUESTS)
            .where(
                _ROW.custom_id == bindparam("which"),
                *(func.coalesce(_ROW.tier, "") != tier for tier in _FASTER),
            )
            .values(wasted=func.coalesce(_ROW.wasted, 0.0) + bindparam("paid"))
        )
        with self._db.write() as connection:
            paid = [
                {"which": name, "paid": cost}
                for name in connection.execute(gone).scalars().all()
                if (cost := costs[name])
            ]
            if paid:
                connection.execute(wasted, paid)
