"""How a task ended: what can be stored again, or told to others than its caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from celery import Celery, states
from celery.exceptions import TaskRevokedError


@dataclass(frozen=True, slots=True)
class Ending:
    """A task's final state.

    Attributes:
        state: "SUCCESS", "FAILURE" or "REVOKED".
        value: The result; for the other states the error as Celery stores it, a dict of
            "exc_type", "exc_message" (a list: the error's arguments) and "exc_module".
        traceback: Of an error, as text.
        children: The tasks that this one sent, as Celery stores them.
    """

    state: str
    value: Any = field(repr=False)
    traceback: str | None = field(default=None, repr=False)
    children: list[Any] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class Ended:
    """A task that ended, for those who are to be told.

    Attributes:
        task: The Celery task.
        request: The call as Celery's tracer takes it, a dict with "id", "headers" and others.
        headers: The call's own headers.
    """

    ending: Ending
    task: Any
    request: Mapping[str, Any] = field(repr=False)
    headers: Mapping[str, Any] | None = field(repr=False)


def traced(app: Celery, result: tuple[Any, Any, Any, Any], children: list[Any]) -> Ending | None:
    """The ending that Celery's tracer tells.

    Args:
        app: The Celery app.
        result: What `trace_task` gave: (R, I, T, Rstr) as Celery names them.
        children: The results of tasks that the task sent.

    Returns:
        None when the task has not ended: it is retried, or another takes its place.
    """
    retval, info, _, _ = result
    sent = [child.as_tuple() for child in children]
    if info is None:
        return Ending(states.SUCCESS, retval, None, sent)
    if info.state != states.FAILURE:
        return None
    text = getattr(retval, "traceback", None)
    made = failed(app, info.retval, None if text is None else str(text))
    return replace(made, children=sent)


def failed(
    app: Celery, error: BaseException, traceback: str | None = None, state: str = states.FAILURE
) -> Ending:
    """The ending of a task that raised `error`."""
    return Ending(state, app.backend.prepare_exception(error, "json"), traceback)


def revoked(app: Celery) -> Ending:
    """The ending of a task that was revoked while it waited."""
    return failed(app, TaskRevokedError("revoked"), state=states.REVOKED)


def of_meta(app: Celery, meta: Mapping[str, Any]) -> Ending:
    """The ending that a result backend holds, as its `get_task_meta` gives it."""
    value, state = meta.get("result"), str(meta["status"])
    if isinstance(value, BaseException):
        value = app.backend.prepare_exception(value, "json")
    children = [
        child.as_tuple() if hasattr(child, "as_tuple") else child
        for child in meta.get("children") or ()
    ]
    return Ending(state, value, meta.get("traceback"), children)


def store(task: Any, task_id: str, ending: Ending, request: Any) -> None:
    """Stores an ending in the task's result backend. Nothing else hears of it: no link, no chord.

    Args:
        task: The Celery task.
        task_id: Id of its call.
        ending: What to store.
        request: The call's context.
    """
    task.backend.store_result(
        task_id, ending.value, ending.state, traceback=ending.traceback, request=request
    )
