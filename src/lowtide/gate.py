"""The gate before submission: pauses, limits and spend caps keep a batch back, or cut it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from celery.utils.log import get_logger

from lowtide import control, inputs, limits, spending
from lowtide.ledger import BatchState
from lowtide.moving import cut, move, withdrawn
from lowtide.pipeline import Next

if TYPE_CHECKING:
    from lowtide.ledger import BatchRow, Lease
    from lowtide.runtime import Runtime

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Stopped:
    """A batch may not go on now.

    Attributes:
        after: When it is looked at again; None when its requests went into other batches.
    """

    after: Next | None


def look(rt: Runtime, lease: Lease, batch: BatchRow) -> BatchRow | Stopped:
    """Holds or cuts a batch that may not be sent now.

    What it should cost is set aside when it may, and requests that have to wait by themselves are
    in a batch of their own.

    Returns:
        The batch as it is then when it may be sent, else why not.
    """
    pause = control.paused(rt, batch.lane, batch.account)
    probes = pause is not None and pause.by_provider and control.may_probe(rt, batch.account)
    if pause is not None and not probes:
        reason = f"{pause.subject} is paused: {pause.reason}"
        return Stopped(hold(rt, lease, limits.Wait(reason, rt.settings.poll_max)))
    looked = _room(rt, lease, batch)
    if probes and isinstance(looked, Stopped):
        control.leave_probe(rt, batch.account)
    return looked


def _room(rt: Runtime, lease: Lease, batch: BatchRow) -> BatchRow | Stopped:
    refused = limits.check(rt, batch)
    if isinstance(refused, limits.Wait):
        return Stopped(hold(rt, lease, refused))
    if isinstance(refused, limits.Split) and cut(rt, lease, batch, refused.tokens):
        return Stopped(None)
    most = None if batch.input_file_id else inputs.most_of_batch(rt, batch)
    if most and cut(rt, lease, batch, most, weigh=partial(inputs.of_line, batch)):
        return Stopped(None)
    dear = spending.check(rt, lease, batch)
    if dear is None:
        return batch
    if isinstance(dear, limits.Wait):
        after = hold(rt, lease, dear)
        spending.call_next(rt, batch)
        return Stopped(after)
    if isinstance(dear, spending.Part):
        whole = not cut(rt, lease, batch, dear.tokens)
        return Stopped(hold(rt, lease, dear.wait) if whole else None)
    theirs = rt.ledger.of_tasks(batch.id, dear.tasks)
    if move(rt, lease, withdrawn(rt, lease, batch), theirs, reason=dear.reason) is None:
        # A faster service is asked for them just now: those stay until that is over.
        return Stopped(hold(rt, lease, limits.Wait(dear.reason, rt.settings.lease)))
    left = rt.ledger.batch(batch.id)
    return Stopped(None) if left is None else _room(rt, lease, left)


def hold(rt: Runtime, lease: Lease, wait: limits.Wait) -> Next:
    """Keeps a batch back, with the reason for people; nothing is set aside for it."""
    batch = rt.ledger.move(
        lease, BatchState.HELD, reason=wait.reason, estimate=None, waits_for=wait.queue
    )
    rt.buffer.set_summary(batch.id, state=batch.state, reason=batch.reason)
    logger.info("Batch %s is held: %s", batch.id, wait.reason)
    return Next("submit", batch.id, at=rt.clock.now() + wait.seconds)
