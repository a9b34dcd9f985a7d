"""What the tests of the ledger share: batches, requests, and a batch brought to some state."""

from __future__ import annotations

from collections.abc import Iterable

from lowtide.lane import Lane
from lowtide.ledger import (
    BatchState,
    Lease,
    Ledger,
    NewBatch,
    NewRequest,
    Outcome,
    Recorded,
    RequestState,
)

LANE = Lane("default", "/v1/chat/completions", "gpt-5-mini")
WAY = (
    BatchState.RECORDED,
    BatchState.UPLOADED,
    BatchState.SUBMITTING,
    BatchState.SUBMITTED,
    BatchState.ENDED,
    BatchState.FETCHED,
)
"""The states of a batch in which its requests have no outcome yet, in order."""


def new_batch(batch_id: str = "b1", *, lane: Lane = LANE, size: int = 1000) -> NewBatch:
    return NewBatch(batch_id, lane, bytes=size, sealed_at=1.0)


def new_request(custom_id: str, *, task: str = "tasks.summarize", tokens: int = 10) -> NewRequest:
    return NewRequest(
        custom_id, custom_id.split(".", maxsplit=1)[0], task, custom_id.encode(), tokens
    )


def record(
    ledger: Ledger, batch_id: str, custom_ids: Iterable[str], *, lane: Lane = LANE
) -> Recorded:
    return ledger.record(new_batch(batch_id, lane=lane), map(new_request, custom_ids))


def leased(ledger: Ledger, batch_id: str, owner: str = "w1", ttl: float = 60.0) -> Lease:
    lease = ledger.lease(batch_id, owner, ttl)
    assert lease is not None
    return lease


def advance(ledger: Ledger, batch_id: str, to: BatchState) -> None:
    """Takes a RECORDED batch along the usual way to `to`, without holding it afterwards."""
    lease = leased(ledger, batch_id)
    for state in WAY[1 : WAY.index(to) + 1]:
        ledger.move(lease, state)
    ledger.release(lease)


def settle(
    ledger: Ledger,
    batch_id: str,
    custom_ids: Iterable[str],
    state: RequestState = RequestState.DELIVERED,
    **values: object,
) -> int:
    """Claims and settles at once."""
    ids = list(custom_ids)
    ledger.claim(batch_id, ids, "settler", 60.0)
    outcomes = [Outcome(custom_id, state, **values) for custom_id in ids]  # type: ignore[arg-type]
    return ledger.settle("settler", outcomes)


def force(ledger: Ledger, batch_id: str, to: BatchState) -> None:
    """Puts a batch into a state without asking, and without a lease: for tables of cases."""
    from lowtide.ledger.tables import BATCHES

    with ledger._db.write() as connection:
        row = BATCHES.update().where(BATCHES.c.id == batch_id)
        connection.execute(row.values(state=to, lease_owner=None, lease_until=None))
