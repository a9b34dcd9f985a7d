"""The pulse of each worker: a note in Redis that it ticked, which ends by itself.

A health check reads it; a worker whose loop stands still, or that has lost Redis, has none. With
it goes a note that a worker sends task events: its main process alone knows that, because Flower
may switch them on while it runs. And one of which ledger a worker has, as those of one Redis must
have the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery.utils.log import get_logger

from lowtide import keys, quiet
from lowtide.connect import connect
from lowtide.shown import without_password

if TYPE_CHECKING:
    from lowtide.runtime import Runtime

logger = get_logger(__name__)

EVERY = 5.0
"""Seconds between two notes of a worker."""
KEPT = 3600
"""Seconds until a note that is not renewed goes."""
_WATCHED = 60
_FRESH = 60.0


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
            self._note_ledger(rt)
            self._next = now + EVERY

    def _note_ledger(self, rt: Runtime) -> None:
        ours = _identity(rt)
        if ours is None:
            return
        key, redis = keys.ledgers(rt.settings.namespace), connect(rt.redis_url, short=True)
        noted = _noted(rt)
        gone = [name for name, (at, *_) in noted.items() if rt.clock.now() - at > KEPT]
        pipe = redis.pipeline(transaction=True)
        pipe.hset(key, self._hostname, f"{rt.clock.now()} {ours} {ledger_of(rt)}")
        if gone:
            pipe.hdel(key, *gone)
        pipe.expire(key, KEPT)
        pipe.execute()
        for name, theirs in _others(rt, noted).items():
            text = "Worker %s has the ledger %s and this one %s, with one Redis: %s"
            quiet.warn(logger, "ledgers", text, name, theirs, ledger_of(rt), ONE_LEDGER)


ONE_LEDGER = (
    "each loses sight of the other's batches, and some may be paid twice. Give all workers of a "
    "Redis one LOWTIDE_DATABASE_URL, or one LOWTIDE_HOME on one machine."
)


def ledger_of(rt: Runtime) -> str:
    """Where this process's ledger is, for people."""
    file = _file(rt)
    return (
        without_password(rt.settings.ledger_url) if file is None else f"{file} on {_machine()[0]}"
    )


def other_ledgers(rt: Runtime) -> dict[str, str]:
    """The workers of this Redis, of the last minute, that have another ledger than this process.

    Servers may be known by several names, so only files are told apart, and files from servers.

    Raises:
        redis.RedisError: Redis cannot be reached.
    """
    return _others(rt, _noted(rt))


def _others(rt: Runtime, noted: Mapping[str, tuple[float, str, str]]) -> dict[str, str]:
    ours, now = _identity(rt), rt.clock.now()
    return {
        name: place
        for name, (at, theirs, place) in sorted(noted.items())
        if theirs != ours and now - at < _FRESH
    }


def _noted(rt: Runtime) -> dict[str, tuple[float, str, str]]:
    """Worker → when it noted its ledger, what tells that from others, where it is."""
    key = keys.ledgers(rt.settings.namespace)
    found: Any = connect(rt.redis_url, short=True).hgetall(key)
    noted = {}
    for name, value in found.items():
        at, identity, place = value.decode().split(" ", 2)
        noted[name.decode()] = (float(at), identity, place)
    return noted


def _identity(rt: Runtime) -> str | None:
    """What tells a ledger from others; None where it is a file that nobody has made yet."""
    file = _file(rt)
    if file is None:
        return "server"
    try:
        found = file.stat()
    except OSError:
        return None
    return f"{_machine()[1]}:{found.st_dev}:{found.st_ino}"


def _file(rt: Runtime) -> Path | None:
    scheme, _, path = rt.settings.ledger_url.partition(":///")
    return Path(path) if scheme.startswith("sqlite") else None


@cache
def _machine() -> tuple[str, str]:
    """This machine's name, and what all containers on it have in common."""
    name = os.uname().nodename
    try:
        return name, Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return name, name


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
