"""Single flight: a call that asks what is on its way already waits for the same line.

Requests that are the same (`Request.share`) and come while the first of them is in a buffer are
told apart when they are recorded: one line is written for all of them. Those that come later,
while the first is in the ledger, are recorded beside it at once, and never see a buffer. Both are
decided in a transaction of the ledger, so Redis need not know who waits for whom.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from celery.utils.log import get_logger

from lowtide import failpoints

if TYPE_CHECKING:
    from lowtide.ledger import NewRequest
    from lowtide.request import Request
    from lowtide.runtime import Runtime

logger = get_logger(__name__)


def join(rt: Runtime, requests: Sequence[Request]) -> Sequence[Request]:
    """Lets requests wait for lines that are on their way.

    Returns:
        The others: they are to go into their buffers.
    """
    from lowtide.errors import LedgerUnavailable

    ours = [request for request in requests if request.share is not None]
    if not ours:
        return requests
    try:
        joined = rt.ledger.join([_row(rt, request) for request in ours])
    except LedgerUnavailable as error:
        # They find the others when their buffer is recorded.
        logger.info("Whether %d calls can share a line is seen later: %s", len(ours), error)
        return requests
    failpoints.reach("share.joined")
    note(rt, {name: batch_id for name, batch_id in joined.items() if batch_id is not None})
    if any(request.deadline is not None for request in ours if request.custom_id in joined):
        at = rt.ledger.next_escalation()
        if at is not None:
            rt.timers.pull_in("escalate", "all", at)
    return [request for request in requests if request.custom_id not in joined]


def note(rt: Runtime, joined: Mapping[str, str]) -> None:
    """Lets `.info` of tasks tell of the batch that they wait in.

    Args:
        rt: The runtime of the app.
        joined: custom_id → batch.
    """
    if not joined:
        return
    batches: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for custom_id, task_id in rt.ledger.task_ids(list(joined)).items():
        batches[joined[custom_id]].append((task_id, custom_id))
    for batch_id, tasks in batches.items():
        rt.buffer.moved(batch_id, tasks)


def _row(rt: Runtime, request: Request) -> NewRequest:
    from lowtide.ledger import NewRequest
    from lowtide.recording import escalation
    from lowtide.request import pack

    return NewRequest(
        custom_id=request.custom_id,
        task_id=request.task_id,
        task=request.task,
        blob=pack(request),
        tokens=request.tokens,
        deadline=request.deadline,
        escalate_at=escalation(rt, request.deadline, rt.clock.now()),
        tenant=request.tenant,
        share_key=request.share,
    )
