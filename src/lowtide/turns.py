"""Turns: who is next of the batches that are held for the same.

Those of one lane go in the order in which they were sealed. Lanes take turns: next is the one with
the fewest tokens at the provider; of those that have none, the one whose last batch ended longest
ago. With a lane for each tenant or task (`share_by`), one that has a thousand batches waiting so
keeps back nobody who has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowtide import control
from lowtide.lane import Lane
from lowtide.providers import is_set

if TYPE_CHECKING:
    from lowtide.ledger import BatchRow
    from lowtide.runtime import Runtime


def tokens(account: str, model: str) -> str:
    """The queue for room in what may be enqueued for a model."""
    return f"tokens:{account}:{model}"


def creations(account: str) -> str:
    """The queue for the creations that an account has left in an hour."""
    return f"creations:{account}"


def money(cap: str, day: int) -> str:
    """The queue for room under a spend cap, of those that were refused on a day.

    What was refused today has had its turn: until the day is over, whatever fits goes before it.
    """
    return f"spend:{cap}:{day}"


def is_next(rt: Runtime, queue: str, batch: BatchRow) -> bool:
    """Whether no held batch goes before this one.

    Those of a paused lane, or of an account that is not set any more, do not count.
    """
    found = rt.ledger.turns(queue, batch.lane)
    mine = next((turn for turn in found if turn.lane == batch.lane), None)
    if mine is None:
        return True  # nobody waits
    if (mine.sealed_at, mine.batch_id) < (batch.sealed_at, batch.id):
        return False
    order = (mine.tokens, mine.ended_at, batch.sealed_at)
    before = [turn for turn in found if turn.lane != batch.lane and turn.order < order]
    return all(_cannot_go(rt, turn.lane) for turn in before)


def call_next(rt: Runtime, queue: str) -> None:
    """Has the batch looked at now that is next."""
    for turn in rt.ledger.turns(queue):
        if not _cannot_go(rt, turn.lane):
            rt.timers.pull_in("submit", turn.batch_id, rt.clock.now())
            return


def _cannot_go(rt: Runtime, lane: str) -> bool:
    account = Lane.parse(lane).account
    return not is_set(account, rt.settings) or control.paused(rt, lane, account) is not None
