"""Record: a sealed buffer moves from Redis into the ledger, from where it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from celery.utils.log import get_logger

from lowtide import failpoints, sharing
from lowtide.decide import escalate_at
from lowtide.lane import Lane
from lowtide.ledger import NewBatch, NewRequest
from lowtide.request import head_of

if TYPE_CHECKING:
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
    if known is None:
        sealed = buffer.sealed_batch(batch_id)
        if sealed is None:
            return None
        lane = Lane.parse(sealed.lane)
        batch = NewBatch(batch_id, lane, bytes=sealed.size, sealed_at=sealed.sealed_at)
        recorded = rt.ledger.record(batch, _rows(rt, batch_id, sealed.sealed_at))
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
        known = rt.ledger.batch(batch_id)
    buffer.drop(batch_id)
    failpoints.reach("record.dropped")
    return known


def _rows(rt: Runtime, batch_id: str, sealed_at: float) -> Iterator[NewRequest]:
    for chunk in rt.buffer.lines(batch_id):
        for custom_id, blob in chunk:
            head = head_of(custom_id, blob)
            yield NewRequest(
                custom_id=custom_id,
                task_id=head.task_id,
                task=head.task,
                blob=blob,
                tokens=head.tokens,
                deadline=head.deadline,
                escalate_at=escalation(rt, head.deadline, sealed_at),
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
