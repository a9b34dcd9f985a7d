"""Decisions about time, without any I/O: when to look again, when to try again."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

# A status call each time a batch's age grew by a tenth: its end is seen within a tenth of its
# age, and a batch of a day takes about a hundred calls.
_POLL_SHARE = 0.1
# Near the expected end, before it and after it, the interval shrinks to this share of the distance
# to it, though not below this share of the age: most ends are seen within 2 % of their batch's age.
_NEAR_SHARE = 0.25
_NEAREST_SHARE = 0.02
_MIN_SAMPLES = 3
_LONGEST_BACKOFF = 600.0


def next_poll(
    now: float,
    submitted_at: float,
    expected_end: float | None,
    *,
    shortest: float,
    longest: float,
) -> float:
    """When the status of a batch is asked for next.

    The interval grows with the batch's age. Where its end is expected soon, it shrinks, so that
    the end is seen soon after it came.

    Args:
        now: Epoch seconds.
        submitted_at: Epoch seconds at which the provider took the batch.
        expected_end: Epoch seconds at which it should end, None where nothing was learned yet.
        shortest: Least seconds between two calls.
        longest: Most seconds between two calls.

    Returns:
        Epoch seconds, later than `now` by `shortest` to `longest`.
    """
    age = max(0.0, now - submitted_at)
    interval = age * _POLL_SHARE
    if expected_end is not None:
        near = max(abs(expected_end - now) * _NEAR_SHARE, age * _NEAREST_SHARE)
        interval = min(max(interval, shortest), near)
    return now + min(max(interval, shortest), max(shortest, longest))


def expected_end(submitted_at: float, turnarounds: Sequence[float]) -> float | None:
    """When a batch should end, from how long the last ones of its lane took.

    Args:
        submitted_at: Epoch seconds.
        turnarounds: Seconds from submission to end of earlier batches.

    Returns:
        Epoch seconds, or None with too few samples to say.
    """
    if len(turnarounds) < _MIN_SAMPLES:
        return None
    return submitted_at + statistics.median(turnarounds)


def backoff(attempt: int, first: float, *, jitter: random.Random | None = None) -> float:
    """Seconds to wait before try number `attempt` + 1: doubled each time, with jitter of ±25 %.

    Args:
        attempt: Tries so far, at least 1.
        first: Seconds after the first try.
        jitter: Source of randomness; the module's own by default.
    """
    wait = min(first * 2.0 ** min(attempt - 1, 30), _LONGEST_BACKOFF)
    return wait * (jitter or random).uniform(0.75, 1.25)


def escalate_at(deadline: float, accepted_at: float, reserve: float) -> float:
    """When a request that has no answer is asked of a faster service.

    Args:
        deadline: Epoch seconds.
        accepted_at: Epoch seconds.
        reserve: Seconds that the faster service needs at most.

    Returns:
        Epoch seconds, `reserve` before the deadline; a call that has little time gets at least
        three quarters of it for its batch.
    """
    return deadline - min(reserve, max(0.0, deadline - accepted_at) / 4)


def seal_by(deadline: float, now: float, reserve: float, turnaround: float | None) -> float:
    """When the buffer of a request is to be sealed so that a batch can meet its deadline.

    Args:
        deadline: Epoch seconds.
        now: Epoch seconds.
        reserve: As for `escalate_at`.
        turnaround: Seconds that the lane's batches take; None when not known, and then half of
            the time that is left is taken for it.
    """
    last = escalate_at(deadline, now, reserve)
    return max(now, last - ((last - now) / 2 if turnaround is None else turnaround))


def halves(custom_ids: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The two halves of a batch that failed for no named line; the culprit is in one of them."""
    middle = len(custom_ids) // 2
    return custom_ids[:middle], custom_ids[middle:]
