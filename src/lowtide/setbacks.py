"""Notices when Redis has forgotten what it had confirmed, as after a failover.

Each worker writes a number that grows and reads the one before. One that is older than what was
confirmed, or gone, tells that the server went back in time: calls accepted since may be lost.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.utils.log import get_logger

from lowtide import keys, quiet

if TYPE_CHECKING:
    from redis import Redis

    from lowtide.runtime import Runtime

logger = get_logger(__name__)
_TTL = 86_400


class Setbacks:
    """The look-out of one worker.

    Args:
        hostname: The worker's node name.
    """

    def __init__(self, hostname: str) -> None:
        self._hostname = hostname
        self._serial = 0
        self._confirmed: tuple[int, float] | None = None

    def look(self, rt: Runtime, redis: Redis) -> float | None:
        """Writes and compares; a setback is logged and counted.

        Args:
            rt: The runtime.
            redis: The client to use.

        Returns:
            About how many seconds of writes Redis has lost; None when none.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        now = rt.clock.now()
        self._serial += 1
        name = keys.told(rt.settings.namespace, self._hostname)
        found: Any = redis.set(name, f"{self._serial} {now}", ex=_TTL, get=True)
        before, self._confirmed = self._confirmed, (self._serial, now)
        if before is None:
            return None
        serial, at = (0, 0.0) if found is None else _parse(found)
        if serial >= before[0]:
            return None
        lost = now - at if serial else 0.0
        quiet.warn(
            logger,
            "redis_setback",
            "Redis has lost writes that it had confirmed (%s). Calls accepted in that time and "
            "not in the ledger have no outcome: their state is PENDING; sending them again with "
            "the same task id is harmless. Use an append-only file, and replicas that confirm.",
            f"about the last {lost:.0f} s" if serial else "it is empty",
            level=logging.ERROR,
        )
        return lost


def _parse(value: bytes) -> tuple[int, float]:
    serial, _, at = value.decode().partition(" ")
    return int(serial), float(at)
