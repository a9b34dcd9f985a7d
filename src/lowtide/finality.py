"""What is final already: tasks that ended, or were revoked, before their answer was delivered."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

from celery import signals, states
from celery.app.task import Context
from celery.backends.base import DisabledBackend
from celery.backends.redis import RedisBackend
from celery.backends.rpc import RPCBackend
from celery.exceptions import TaskRevokedError
from celery.utils.log import get_logger

from lowtide.outcome_pipe import is_own

logger = get_logger(__name__)


def stored(tasks: Iterable[tuple[Any, str]]) -> dict[str, dict[str, Any]]:
    """The final results that tasks have already, by task id.

    One MGET with Redis. A backend that cannot be asked (none, or rpc, whose results
    lie in the caller's queue) knows of none.

    Args:
        tasks: Each Celery task with the id of its call.

    Raises:
        Exception: The backend does not answer.
    """
    by_backend: dict[int, tuple[Any, list[str]]] = {}
    for task, task_id in tasks:
        backend = task.backend
        by_backend.setdefault(id(backend), (backend, []))[1].append(task_id)
    found: dict[str, dict[str, Any]] = {}
    for backend, ids in by_backend.values():
        found.update(_final(backend, ids))
    return found


def _final(backend: Any, ids: list[str]) -> dict[str, dict[str, Any]]:
    if isinstance(backend, DisabledBackend | RPCBackend):
        return {}
    asks = not isinstance(backend, RedisBackend)
    if asks:
        reads = [(each, partial(backend.get_task_meta, each, cache=False)) for each in ids]
    else:
        values = backend.mget([backend.get_key_for_task(task_id) for task_id in ids])
        known = zip(ids, values, strict=True)
        reads = [(each, partial(backend.decode_result, value)) for each, value in known if value]
    found: dict[str, dict[str, Any]] = {}
    for task_id, read in reads:
        try:
            meta = read()
            if meta["status"] in states.READY_STATES:
                found[task_id] = meta
        except Exception as error:
            if asks and not is_own(error):
                raise
            logger.warning(
                "What is stored as the result of task %s cannot be read, and counts as none: %s",
                task_id,
                error,
            )
    return found


def repeat(
    task: Any, context: Context, meta: dict[str, Any]
) -> Literal["SKIPPED", "REVOKED", "AGAIN"]:
    """Tells a chord again what its member's final result is.

    It may not know: a revoke of a waiting task tells no chord, and a worker may have died after
    it stored the result. Only Redis takes a part twice without counting it twice.

    Returns:
        "AGAIN" while a worker is about to send the chord's body: it may be the one that died,
        and only when its claim is over can another send it.
    """
    if context.chord and _is_claimed(task.backend, context):
        return "AGAIN"
    was_revoked = meta["status"] == states.REVOKED
    if context.chord and (was_revoked or isinstance(task.backend, RedisBackend)):
        result = TaskRevokedError("revoked") if was_revoked else meta["result"]
        task.backend.on_chord_part_return(context, meta["status"], result)
    return "REVOKED" if was_revoked else "SKIPPED"


def _is_claimed(backend: Any, context: Context) -> bool:
    """Whether some worker has claimed the sending of the chord's body, and has not done it."""
    if not isinstance(backend, RedisBackend) or not context.group:
        return False
    return backend.client.get(backend.get_key_for_group(context.group, ".c")) not in (None, b"done")


def revoke(task: Any, context: Context, reason: Literal["revoked", "expired"] = "revoked") -> None:
    """Ends a task that was revoked while it waited, or taken too late, as a worker does."""
    task.backend.mark_as_revoked(
        context.id,
        reason,
        request=context,
        store_result=not context.ignore_result or task.store_errors_even_if_ignored,
    )
    signals.task_revoked.send(
        sender=task, request=context, terminated=False, signum=None, expired=reason == "expired"
    )
