"""Puts back lost timers and indexes of the buffers, from the lines that are still there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.utils.log import get_logger

from lowtide import keys
from lowtide.clock import Clock
from lowtide.scripts import Call, run
from lowtide.timers import script_time

logger = get_logger(__name__)
SCAN_EVERY = 3600
_LINES_GONE = -1
_LANE_UNKNOWN = -2


def rebuild(
    redis: Any,
    namespace: str,
    clock: Clock,
    buffer_call: Callable[[str, str], Call],
    *,
    scan: bool | None,
) -> int:
    """See `Buffer.rebuild`.

    Args:
        redis: Where the buffers are.
        namespace: Of the deployment.
        clock: For the scripts.
        buffer_call: Makes the call of a script of the open buffer from its name and a lane key.
        scan: Whether to look through all keys; None for "when it was not done for an hour".
    """
    lanes = {name.decode() for name in redis.smembers(keys.lanes(namespace))}
    batches = {name.decode() for name in redis.hkeys(keys.sealed(namespace))}
    if _may_scan(redis, namespace) if scan is None else scan:
        _find(redis, namespace, lanes, batches)
    healed = run(redis, [buffer_call("heal", lane) for lane in sorted(lanes)])
    ids = sorted(batches)
    restored = run(redis, [_restore_call(namespace, clock, batch_id) for batch_id in ids])
    for batch_id, missing in zip(ids, restored, strict=True):
        if missing == _LINES_GONE:
            logger.error("Batch %s is sealed, but its requests are gone from Redis", batch_id)
        elif missing == _LANE_UNKNOWN:
            logger.error("Batch %s is in no index, and its lane is not known", batch_id)
    return sum(healed) + sum(missing for missing in restored if missing > 0)


def _may_scan(redis: Any, namespace: str) -> bool:
    """Whether the last scan is an hour ago; whoever is told so has to do it."""
    return bool(redis.set(keys.scanned(namespace), b"1", ex=SCAN_EVERY, nx=True))


def _find(redis: Any, namespace: str, lanes: set[str], batches: set[str]) -> None:
    """Adds the lanes and batches whose lines are there, whatever the indexes say."""
    start = keys.prefix(namespace)
    for key in redis.scan_iter(match=f"{start}*:lines", count=1000):
        kind, _, rest = key.decode().removeprefix(start).removesuffix(":lines").partition(":")
        if kind == "lane":
            lanes.add(rest)
        elif kind == "batch":
            batches.add(rest)


def _restore_call(namespace: str, clock: Clock, batch_id: str) -> Call:
    names = (
        keys.sealed(namespace),
        keys.timers(namespace),
        keys.lanes(namespace),
        keys.batch(namespace, batch_id),
        keys.batch_lines(namespace, batch_id),
    )
    return Call("restore", names, (script_time(clock), batch_id))
