"""The form in which Celery's backends store a success, made in a fifth of their time.

Backends look their settings up anew for each result, and ask whether its time is one that a clock
shows twice. A backend that makes something else of a result is asked itself.
"""
# ruff: noqa: SLF001 - Celery's backends have no public place for it

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

from celery import states
from celery.app.task import Context
from celery.backends.base import Backend

from lowtide.celery_seam import dump

Form: TypeAlias = Callable[[str, Any, Any, Context | None], str | bytes]
"""(task id, result, traceback, request) → what is stored."""

_OWN = ("_get_result_meta", "current_task_children", "encode", "_encode")


def form_of(backend: Any) -> Form:
    """What makes the stored form for `backend`, as its settings are now."""
    kind, base = type(backend), Backend
    is_common = (
        all(getattr(kind, name) is getattr(base, name) for name in _OWN)
        and backend.serializer == "json"
        and not backend.compression
        and not backend.app.conf.find_value_for_key("extended", "result")
    )
    return _common(backend) if is_common else _by(backend)


def _by(backend: Any) -> Form:
    def form(task_id: str, result: Any, traceback: Any, request: Context | None) -> str | bytes:
        meta = backend._get_result_meta(
            result=result, state=states.SUCCESS, traceback=traceback, request=request
        )
        encoded: str | bytes = backend.encode({**meta, "task_id": task_id})
        return encoded

    return form


def _common(backend: Any) -> Form:
    zone = backend.app.timezone

    def form(task_id: str, result: Any, traceback: Any, request: Context | None) -> str | bytes:
        meta = {
            "status": states.SUCCESS,
            "result": result,
            "traceback": traceback,
            "children": backend.current_task_children(request),
            "date_done": datetime.now(UTC).astimezone(zone).isoformat(),
        }
        if request and request.group:
            meta["group_id"] = request.group
        if request and request.parent_id:
            meta["parent_id"] = request.parent_id
        meta["task_id"] = task_id
        return dump(meta, "json")[2]

    return form
