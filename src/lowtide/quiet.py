"""Failures that come again and again: one log line a minute for each kind, and all are counted."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from lowtide import keys

if TYPE_CHECKING:
    from lowtide.runtime import Runtime

EVERY = 60.0

_lock = threading.Lock()
_quiet_until: dict[tuple[int, str], float] = {}
_held_back: Counter[str] = Counter()
_uncounted: Counter[str] = Counter()


def warn(
    logger: logging.Logger, kind: str, message: str, *args: object, level: int = logging.WARNING
) -> bool:
    """Logs a failure, unless one of its kind was logged in the last minute; counts it anyway.

    Args:
        logger: Where.
        kind: What failed, such as "redis", "ledger" or "provider"; the metric's label.
        message: As for `logger.warning`.
        args: Its arguments.
        level: Of the line.

    Returns:
        Whether it was logged.
    """
    now = time.monotonic()
    with _lock:
        _uncounted[kind] += 1
        if now < _quiet_until.get((level, kind), 0.0):
            _held_back[kind] += 1
            return False
        _quiet_until[level, kind] = now + EVERY
        more = _held_back.pop(kind, 0)
    if more:
        message, args = f"{message} (and %d more like it since the last such line)", (*args, more)
    logger.log(level, message, *args)
    return True


def pass_on(rt: Runtime) -> None:
    """Adds what was counted here to the deployment's counts, now or when Redis is back."""
    if not _uncounted:
        return
    from redis.exceptions import RedisError  # an app that only sends comes here never

    with _lock:
        counted = dict(_uncounted)
        _uncounted.clear()
    name = keys.failures(rt.settings.namespace)
    try:
        pipe = rt.redis.pipeline(transaction=True)
        for kind, count in counted.items():
            pipe.hincrby(name, kind, count)
        pipe.expire(name, round(rt.settings.state_ttl))
        pipe.execute()
    except (RedisError, OSError):
        with _lock:
            _uncounted.update(counted)


def counts(rt: Runtime) -> dict[str, int]:
    """How often each kind of failure was met, by all processes of the deployment."""
    found: Any = rt.redis.hgetall(keys.failures(rt.settings.namespace))
    return {kind.decode(): int(count) for kind, count in found.items()}
