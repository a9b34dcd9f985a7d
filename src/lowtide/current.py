"""The task that is current, as it would be in Celery's tracer: validators, the handlers of a log,
and what is sent meanwhile, ask for it.
"""

from __future__ import annotations

from typing import Any, Self

from celery._state import _task_stack
from celery.app.task import Context


class Current:
    """A context manager in which each call is the current one until the next is."""

    def __init__(self) -> None:
        self._task: Any = None
        self._contexts: list[Context] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.request_stack.pop()
            _task_stack.pop()
            self._task = None

    def set(self, task: Any, context: Context) -> None:
        """Makes a call the current one."""
        if task is self._task:
            self._contexts[-1] = context
            return
        self.__exit__()
        _task_stack.push(task)
        self._contexts = task.request_stack.push(context)
        self._task = task
