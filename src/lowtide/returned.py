"""Which of many tasks have ended, and how: asked of the result backend in one go where it can."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from celery import Celery, states


def returned(app: Celery, task_ids: Sequence[str]) -> Iterator[tuple[str, bool, Any]]:
    """The tasks that have ended: (task id, whether with a result, result or error as text)."""
    for task_id, meta in _metas(app, task_ids):
        status = str(meta.get("status"))
        if status == states.SUCCESS:
            yield task_id, True, meta.get("result")
        elif status in states.EXCEPTION_STATES and status != states.RETRY:
            yield task_id, False, _reason(status, meta.get("result"))


def _metas(app: Celery, task_ids: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    backend = app.backend
    if not hasattr(backend, "mget"):
        for task_id in task_ids:
            yield task_id, backend.get_task_meta(task_id, cache=False)
        return
    keys = [backend.get_key_for_task(task_id) for task_id in task_ids]
    values = backend.mget(keys)
    found = values if isinstance(values, Mapping) else dict(zip(keys, values, strict=True))
    for key, task_id in zip(keys, task_ids, strict=True):
        if found.get(key) is not None:
            yield task_id, backend.decode_result(found[key])


def _reason(status: str, error: Any) -> str:
    if status == states.REVOKED:
        return "The task was revoked."
    return str(error).strip() or type(error).__name__
