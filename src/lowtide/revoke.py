"""Revoke: a task that waits for its answer ends at once, and what can still be saved is.

Celery tells every worker of a revoke. The tick looks which of the tasks wait in lowtide and sends
them here, so that it makes no difference which process revoked, and whether before or after the
request was sent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from celery.utils.log import get_logger

from lowtide.finishing import finish
from lowtide.lane import Lane
from lowtide.leases import claimed
from lowtide.ledger import NewBatch, NewRequest, new_batch_id
from lowtide.outcomes import Failed
from lowtide.request import unpack

if TYPE_CHECKING:
    from lowtide.buffer import Buffer
    from lowtide.held import Where
    from lowtide.runtime import Runtime

logger = get_logger(__name__)


def waiting(buffer: Buffer, task_ids: Iterable[str]) -> list[str]:
    """Those of `task_ids` that wait for an answer."""
    ids = list(task_ids)
    return [task for task, where in zip(ids, buffer.where(ids), strict=True) if where]


def revoke(rt: Runtime, task_ids: Sequence[str], hostname: str) -> dict[str, float]:
    """Ends revoked tasks that wait for an answer.

    A request that is not sent yet leaves its batch. One that is sent is paid, if the provider
    answers it; a batch in which nothing is waited for any more is cancelled.

    Returns:
        Task id → when to try again, epoch seconds, of those that still wait: they are between
        buffer and ledger, or cannot be ended here and now.
    """
    recorded: dict[str, list[str]] = defaultdict(list)
    open_: dict[str, list[Where]] = defaultdict(list)
    between = set()
    found = rt.buffer.where(task_ids)
    # Not where Redis says: a request that moved, or joined others, may not be noted there yet.
    batches = rt.ledger.batches_of([where.custom_id for where in found if where is not None])
    for task_id, where in zip(task_ids, found, strict=True):
        if where is None:
            continue
        if where.custom_id in batches:
            recorded[batches[where.custom_id]].append(where.custom_id)
        elif rt.ledger.batch(where.batch_id) is not None:
            recorded[where.batch_id].append(where.custom_id)
        elif where.state == "BUFFERED" and where.lane is not None:
            open_[where.lane].append(where)
        else:
            between.add(task_id)
    for lane, wheres in open_.items():
        batch_id = _take_out(rt, Lane.parse(lane), [where.custom_id for where in wheres])
        if batch_id is not None:
            recorded[batch_id] = [where.custom_id for where in wheres]
    for batch_id, custom_ids in recorded.items():
        _revoke_in(rt, batch_id, custom_ids, set(task_ids), hostname)
    ids = {where.custom_id: task for task, where in zip(task_ids, found, strict=True) if where}
    now = rt.clock.now()
    return {
        task: now + (rt.settings.tick if task in between else rt.settings.retry_delay)
        for task in _still_waiting(rt, ids)
    }


def _still_waiting(rt: Runtime, ids: Mapping[str, str]) -> list[str]:
    """The tasks, custom_id → task id, whose request has no outcome.

    Another replica holds it, its buffer was sealed since, the result backend is away, or this
    worker does not know the task.
    """
    over = rt.ledger.task_ids(ids).keys() - rt.ledger.batches_of(ids).keys()
    return [task for custom_id, task in ids.items() if custom_id not in over]


def _take_out(rt: Runtime, lane: Lane, custom_ids: Sequence[str]) -> str | None:
    """Takes requests out of their open buffer, into a batch of their own that is never sent.

    The ledger has them before the buffer lets them go: whatever dies in between, they are in
    one place, and the one that comes second is refused.

    Returns:
        The batch, None when the buffer has none of them any more.
    """
    found = rt.buffer.peek(lane.key, custom_ids)
    if not found:
        return None
    now = rt.clock.now()
    requests = [unpack(custom_id, lane, blob) for custom_id, blob in found.items()]
    batch = NewBatch(
        new_batch_id(now),
        lane,
        bytes=sum(request.line_size for request in requests),
        sealed_at=now,
        # Time for what follows; should this replica die, the sweep sends them after all, and
        # their tasks are found revoked when they are answered.
        next_at=now + rt.settings.lease,
        reason="revoked",
    )
    rt.ledger.record(
        batch,
        [
            NewRequest(r.custom_id, r.task_id, r.task, found[r.custom_id], r.tokens)
            for r in requests
        ],
    )
    rt.buffer.remove(lane.key, list(found))
    rt.timers.arm("submit", batch.id, now + rt.settings.lease)
    return batch.id


def _revoke_in(
    rt: Runtime, batch_id: str, custom_ids: Sequence[str], task_ids: set[str], hostname: str
) -> None:
    batch = rt.ledger.batch(batch_id)
    if batch is None:
        return
    with claimed(rt, batch_id, custom_ids) as claim:
        ids = [row.custom_id for row in claim.rows]
        gone = {custom_id: Failed(custom_id, "LowtideError", "revoked", {}) for custom_id in ids}
        finish(rt, batch, claim, found=gone, hostname=hostname, revoked=task_ids)
    logger.info("Batch %s: %d requests were revoked", batch_id, len(ids))
    if batch.state == "SUBMITTED" and rt.ledger.undelivered(batch_id) == 0:
        rt.provider(batch.account).cancel(str(batch.provider_batch_id))
