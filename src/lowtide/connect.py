"""Clients for the Redis of the buffers: one per URL and process, shared by all its threads."""

from __future__ import annotations

import os
import threading

from redis import BlockingConnectionPool, Redis
from redis.backoff import EqualJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from lowtide import sentinel
from lowtide.errors import SettingsError

_CONNECTIONS = 64
_clients: dict[tuple[str, bool, int], Redis] = {}
_lock = threading.Lock()


def connect(url: str, *, short: bool = False) -> Redis:
    """The client for `url` in this process; connects when it is first used.

    Every command that lowtide sends may be sent twice: an append is refused by custom_id, the
    loser of a seal gets nothing, and what a lost answer would have told is in a timer. So a
    command whose connection broke is sent again.

    Args:
        url: "redis://", "rediss://" or "unix://", whose query may set any option of redis-py; or
            "redis+sentinel://", see `sentinel.py`.
        short: For ticks, which must not block: fails within some 2 s instead of trying on.

    Raises:
        SettingsError: `url` is not a Redis URL.
    """
    key = (url, short, os.getpid())
    client = _clients.get(key)
    if client is None:
        with _lock:
            client = _clients.get(key)
            if client is None:
                client = _clients[key] = _client(url, short=short)
    return client


def _client(url: str, *, short: bool) -> Redis:
    if short:
        seconds, retry = 2.0, Retry(NoBackoff(), 1, (RedisConnectionError,))
    else:
        seconds, retry = 10.0, Retry(EqualJitterBackoff(cap=1.0, base=0.1), 3)
    if url.startswith(sentinel.SCHEME):
        return sentinel.client(url, timeout=seconds, retry=retry)
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=seconds,  # for a connection that another thread gives back
            socket_timeout=seconds,
            socket_connect_timeout=min(seconds, 5.0),
            retry=retry,
        )
    except ValueError as error:
        raise SettingsError(
            f"LOWTIDE_REDIS_URL is not a Redis URL ({error}); write redis://host:6379/0."
        ) from None
    reqs = pool.connection_kwargs.get("ssl_cert_reqs")
    if isinstance(reqs, str):  # a broker's URL may say CERT_REQUIRED, as Celery documents it
        pool.connection_kwargs["ssl_cert_reqs"] = reqs.removeprefix("CERT_").lower()
    pool.connection_kwargs["decode_responses"] = False  # lines are bytes, whatever the URL says
    return Redis(connection_pool=pool)


def _after_fork() -> None:
    """In a child: another thread of the parent may hold the lock, and it is held for good."""
    global _lock  # noqa: PLW0603 - a lock cannot be made new in place
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
