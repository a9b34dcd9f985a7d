"""The sweep: every timer is re-armed from what ledger and buffers hold.

Timers are only hints that live in Redis. Whatever loses one (a crash between two writes, a wiped
Redis, a dead replica, a clock that was ahead), the sweep finds the batch that nobody looks after.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from celery.utils.log import get_logger

from lowtide.destinations import KEPT

if TYPE_CHECKING:
    from lowtide.ledger import Due
    from lowtide.runtime import Runtime

logger = get_logger(__name__)
SWEEP_EVERY = 60.0
# No step of an open batch waits for longer, and none of one that was sent: a timer that is later
# was armed by a clock that was ahead.
_LONGEST = 86_400.0
_LONGEST_SENT = 3_600.0

# The step that brings a batch on from each state.
STEP_OF = {
    "RECORDED": "submit",
    "UPLOADED": "submit",
    "SUBMITTING": "submit",
    "HELD": "submit",
    "SUBMITTED": "poll",
    "ENDED": "fetch",
    "FETCHED": "deliver",
}


def sweep(rt: Runtime) -> int:
    """Re-arms what has no timer, and arms the next sweep.

    Returns:
        How many timers were missing.
    """
    from lowtide import control, idle, turns  # some need this module

    now = rt.clock.now()
    rt.timers.arm("sweep", "all", now + SWEEP_EVERY)
    rearmed = rt.buffer.rebuild()
    for batch in _open_batches(rt):
        at = max(batch.next_at or now, now)
        step = STEP_OF[batch.state]
        rearmed += rt.timers.arm(step, batch.batch_id, at, if_absent=True)
        most = _LONGEST if step == "submit" else max(_LONGEST_SENT, rt.settings.poll_max)
        rearmed += rt.timers.pull_in(step, batch.batch_id, now + most)
    for queue in rt.ledger.queues():
        # Room may have returned between a batch's look for it and its being held.
        turns.call_next(rt, queue)
    control.bring_on_refused(rt)
    escalation = rt.ledger.next_escalation()
    if escalation is not None:
        rearmed += rt.timers.arm("escalate", "all", escalation, if_absent=True)
        if escalation > now:
            # Not what is due: its pass may be running, and one runs at a time.
            rearmed += rt.timers.pull_in("escalate", "all", escalation)
    messages = {**rt.ledger.next_messages(), KEPT: rt.ledger.next_message(KEPT)}
    for destination, due in messages.items():
        if due is not None:
            rearmed += rt.timers.arm("tell", destination, max(due, now), if_absent=True)
    idle.forget(rt)
    if rearmed:
        logger.warning("The sweep re-armed %d timers that were lost", rearmed)
    return rearmed


def _open_batches(rt: Runtime) -> Iterator[Due]:
    """All of them, some at a time: thousands that are held must hide none that runs."""
    last: Due | None = None
    while some := rt.ledger.due(after=last):
        yield from some
        last = some[-1]
