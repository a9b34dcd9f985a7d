"""Record: a sealed buffer moves from Redis into the ledger, from where it is sent."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from celery.utils.log import get_logger

from lowtide import failpoints, sharing
from lowtide.decide import escalate_at
from lowtide.lane import Lane
from lowtide.ledger import BatchState, NewBatch, NewRequest, new_batch_id
from lowtide.request import head_of

if TYPE_CHECKING:
    from lowtide.held import SealedBatch
    from lowtide.ledger import BatchRow
    from lowtide.runtime import Runtime

logger = get_logger(__name__)


def record(rt: Runtime, batch_id: str) -> BatchRow | None:
    """Moves a sealed buffer from Redis into the ledger, in one transaction.

    Returns:
        The ledger's batch, None when neither Redis nor the ledger knows the id.
    """
    buffer = rt.buffer
    known = rt.ledger.batch(batch_id)
    sealed = buffer.sealed_batch(batch_id)
    if sealed is not None and known is not None:
        _record_added(rt, sealed)
    elif sealed is not None:
        _record(rt, batch_id, sealed)
        known = rt.ledger.batch(batch_id)
    if known is None:
        return None
    buffer.drop(batch_id)
    failpoints.reach("record.dropped")
    return known


def _record(
    rt: Runtime, batch_id: str, sealed: SealedBatch, only: Collection[str] | None = None
) -> None:
    """Writes a sealed buffer into the ledger as batch `batch_id`.

    Args:
        only: custom_ids of the requests to take; None = all.
    """
    size = sealed.size if only is None else sealed.size * len(only) // max(sealed.requests, 1)
    lane = Lane.parse(sealed.lane)
    batch = NewBatch(batch_id, lane, bytes=size, sealed_at=sealed.sealed_at)
    rows = _rows(rt, sealed)
    if only is not None:
        rows = (row for row in rows if row.custom_id in only)
    recorded = rt.ledger.record(batch, rows)
    failpoints.reach("record.recorded")
    sharing.note(rt, recorded.joined)
    if recorded.refused:
        logger.warning(
            "Batch %s: %d requests are on their way already and were left out",
            batch_id,
            len(recorded.refused),
        )
    if (at := rt.ledger.next_escalation()) is not None:
        rt.timers.pull_in("escalate", "all", at)


def _record_added(rt: Runtime, sealed: SealedBatch) -> None:
    """Records what came into a buffer after the ledger had it.

    A Redis that lost its last second, or came back with an older copy, has a buffer open again
    that was sealed and recorded; what is accepted then is added to it.
    """
    added: dict[str, str] = {}
    for chunk in rt.buffer.lines(sealed.batch_id):
        fresh = dict(chunk)
        for custom_id in rt.ledger.task_ids(list(fresh)):
            del fresh[custom_id]
        added |= {name: head_of(name, blob).task_id for name, blob in fresh.items()}
    if not added:
        return
    new_id = new_batch_id(rt.clock.now())
    logger.warning(
        "Batch %s is in the ledger already, and its buffer came back with %d more requests, as "
        "Redis had lost what it last wrote; they go in batch %s",
        sealed.batch_id,
        len(added),
        new_id,
    )
    _record(rt, new_id, sealed, added.keys())
    rt.buffer.set_summary(new_id, lane=sealed.lane, state=BatchState.RECORDED)
    rt.buffer.moved(new_id, [(task_id, name) for name, task_id in sorted(added.items())])
    rt.kick("submit", new_id)


def _rows(rt: Runtime, sealed: SealedBatch) -> Iterator[NewRequest]:
    for chunk in rt.buffer.lines(sealed.batch_id):
        for custom_id, blob in chunk:
            head = head_of(custom_id, blob)
            yield NewRequest(
                custom_id=custom_id,
                task_id=head.task_id,
                task=head.task,
                blob=blob,
                tokens=head.tokens,
                deadline=head.deadline,
                escalate_at=escalation(rt, head.deadline, sealed.sealed_at),
                tenant=head.tenant,
                share_key=head.share,
            )


def escalation(rt: Runtime, deadline: float | None, sealed_at: float) -> float | None:
    """When the request is to be escalated, or to fail where nothing is escalated."""
    if deadline is None:
        return None
    if not rt.settings.escalate:
        return deadline
    return escalate_at(deadline, sealed_at, rt.settings.escalate_reserve)
