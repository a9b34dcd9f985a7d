"""A call's result is listened to when somebody asks for it, not when the call is sent.

Celery's Redis backend subscribes to the channel of each result as its call is sent. An answer
comes hours later, when the caller has ended or kept no more than the id: until then a subscription
is memory in the app and in Redis, and to make and end it takes a good part of what sending does.
`.get()` and `.then()` subscribe by themselves, before they look whether the result is there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_later: ContextVar[bool] = ContextVar("lowtide_listening_later", default=False)
_MARK = "_lowtide_listens_later"


@contextmanager
def later(backend: Any) -> Iterator[None]:
    """Within the block, `backend` does not subscribe to the results of calls that are sent.

    Backends that have to be told of a call, such as RPC's, are left as they are.
    """
    if not subscribes(backend):
        yield
        return
    if _MARK not in backend.__dict__:
        _patch(backend)
    token = _later.set(True)
    try:
        yield
    finally:
        _later.reset(token)


def subscribes(backend: Any) -> bool:
    """Whether `backend` subscribes to a channel for each result, as Celery's Redis backend does."""
    # What the app does not use it need not import.
    redis = sys.modules.get("celery.backends.redis")
    return redis is not None and isinstance(backend, redis.RedisBackend)


def _patch(backend: Any) -> None:
    """Celery makes backends one for each thread; each is patched once."""
    subscribe = backend.on_task_call

    def on_task_call(producer: Any, task_id: str) -> Any:
        return None if _later.get() else subscribe(producer, task_id)

    backend.on_task_call = on_task_call
    backend.__dict__[_MARK] = True
