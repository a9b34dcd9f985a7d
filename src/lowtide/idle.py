"""Lanes that nobody uses any more are forgotten.

Sweep and page look at each that is known, and with one for each tenant (`share_by`) there are ever
more of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowtide import keys

if TYPE_CHECKING:
    from lowtide.runtime import Runtime

EVERY = 3600
"""Seconds between two looks, of all replicas."""
_TOGETHER = 500


def forget(rt: Runtime) -> int:
    """Forgets lanes in which nothing waits and of which no batch is on its way or ended within
    `state_ttl`, once an hour. The next call of one makes it known again.

    Returns:
        How many were forgotten.
    """
    if not rt.redis.set(keys.idle(rt.settings.namespace), b"1", ex=EVERY, nx=True):
        return 0
    since = rt.clock.now() - rt.settings.state_ttl
    sealed = {batch.lane for batch in rt.buffer.sealed()}
    lanes = (each.lane for each in rt.buffer.lanes() if not each.requests)
    empty = [lane for lane in lanes if lane not in sealed]
    forgotten = 0
    for start in range(0, len(empty), _TOGETHER):
        some = empty[start : start + _TOGETHER]
        used = rt.ledger.lanes_since(some, since)
        forgotten += rt.buffer.forget_lanes([lane for lane in some if lane not in used])
    return forgotten
