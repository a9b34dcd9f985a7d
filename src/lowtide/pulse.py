"""The pulse of each worker: a note in Redis that it ticked, which ends by itself.

A health check reads it; a worker whose loop stands still, or that has lost Redis, has none. With
it goes a note that a worker sends task events: its main process alone knows that, because Flower
may switch them on while it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowtide import keys
from lowtide.connect import connect

if TYPE_CHECKING:
    from lowtide.runtime import Runtime

EVERY = 5.0
"""Seconds between two notes of a worker."""
KEPT = 3600
"""Seconds until a note that is not renewed goes."""
_WATCHED = 60


class Pulse:
    """Notes a worker's ticks.

    Args:
        hostname: The worker's name, such as "celery@host".
    """

    def __init__(self, hostname: str) -> None:
        self._hostname = hostname
        self._next = 0.0

    def beat(self, rt: Runtime, *, watched: bool = False) -> None:
        """Notes this tick, unless one was noted a moment ago.

        Args:
            rt: The runtime of the app.
            watched: Whether the worker sends task events.

        Raises:
            redis.RedisError: Redis cannot be reached.
        """
        now = rt.clock.monotonic()
        if now >= self._next:
            name = keys.tick(rt.settings.namespace, self._hostname)
            redis = connect(rt.redis_url, short=True)
            redis.set(name, str(rt.clock.now()), ex=KEPT)
            if watched:
                redis.set(keys.watched(rt.settings.namespace), "1", ex=_WATCHED)
            self._next = now + EVERY


def watched(rt: Runtime) -> bool:
    """Whether task events are to be sent: some worker is set to.

    Raises:
        redis.RedisError: Redis cannot be reached.
    """
    if rt.app.conf.worker_send_task_events:
        return True
    return bool(connect(rt.redis_url, short=True).exists(keys.watched(rt.settings.namespace)))


def age(rt: Runtime, hostname: str) -> float | None:
    """Seconds since the worker's last noted tick; None when there is no note."""
    noted = connect(rt.redis_url, short=True).get(keys.tick(rt.settings.namespace, hostname))
    return None if noted is None else max(0.0, rt.clock.now() - float(noted))
