"""What a batch has to do next: pure decisions over its plan and the time. No I/O.

The table of transitions, as the API reference gives it::

    validating → in_progress | failed | cancelling
    in_progress → finalizing | expired | cancelling
    finalizing → completed | cancelling
    cancelling → cancelled
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from lowtide.simulator.records import BatchRecord

_LOOKS = 20  # how often at most the progress of a long batch is brought up to date


class Do(Enum):
    """The verbs of a batch's life."""

    WAIT = "wait"
    VALIDATE = "validate"
    WORK = "work"
    FINALIZE = "finalize"
    COMPLETE = "complete"
    EXPIRE = "expire"
    CANCEL = "cancel"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Step:
    """What to do, and the time (Unix seconds) at which it belongs.

    ``lines`` is for WORK: how many lines of the shuffled order have to be done then.
    """

    do: Do
    at: float
    lines: int = 0


def decide(batch: BatchRecord, now: float) -> Step:
    """The next step of a live batch; WAIT carries the time at which to look again."""
    if batch.status == "validating":
        return _validating(batch, now)
    if batch.status == "in_progress":
        return _in_progress(batch, now)
    if batch.status == "finalizing":
        return _finalizing(batch, now)
    closes = (batch.cancelling_at or 0.0) + batch.cancelling_s
    return Step(Do.CLOSE if now >= closes else Do.WAIT, closes)


def expires(batch: BatchRecord) -> float:
    """When the batch really expires: at its window's end, or as a quirk has it."""
    if batch.quirks.get("never_expires"):
        return math.inf
    if batch.quirks.get("expires_after") is not None:
        return batch.created_at + float(batch.quirks["expires_after"])
    return batch.expires_at + float(batch.quirks.get("late_expiry", 0.0))


def _validating(batch: BatchRecord, now: float) -> Step:
    at = batch.created_at + batch.validating_s
    if batch.cancel_at is not None and batch.cancel_at < at:
        return Step(Do.CANCEL, batch.cancel_at)
    return Step(Do.VALIDATE if now >= at else Do.WAIT, at)


def _in_progress(batch: BatchRecord, now: float) -> Step:
    start = batch.in_progress_at or batch.created_at
    finish = math.inf if "stuck" in batch.quirks else start + batch.working_s
    cancel = math.inf if batch.cancel_at is None else max(batch.cancel_at, start)
    end = min(finish, cancel, expires(batch))
    lines = _due(batch, start, min(now, end))
    if batch.done < lines:
        return Step(Do.WORK, min(now, end), lines)
    if now < end:
        look = max(batch.working_s / _LOOKS, 0.05)
        return Step(Do.WAIT, min(end, now + look) if batch.done < batch.total else end)
    if cancel == end:
        return Step(Do.CANCEL, end)
    return Step(Do.FINALIZE if finish == end else Do.EXPIRE, end)


def _due(batch: BatchRecord, start: float, until: float) -> int:
    limit = float(batch.quirks.get("stuck", 1.0))
    if until >= start + batch.working_s > start:
        return int(batch.total * limit)  # a share of the time could be a hair less than all of it
    if batch.working_s <= 0:
        # No plan to follow: all at once, but a wish to cancel stops where the work is.
        return int(batch.total * limit) if batch.cancel_at is None else batch.done
    share = (until - start) / batch.working_s
    return int(batch.total * max(0.0, min(share, limit)))


def _finalizing(batch: BatchRecord, now: float) -> Step:
    at = (batch.finalizing_at or 0.0) + batch.finalizing_s
    if batch.cancel_at is not None and batch.cancel_at < at:
        return Step(Do.CANCEL, max(batch.cancel_at, batch.finalizing_at or 0.0))
    return Step(Do.COMPLETE if now >= at else Do.WAIT, at)
