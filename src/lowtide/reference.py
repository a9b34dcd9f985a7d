"""Calling a batch task by its name, from an app that has not its code."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from celery import Celery
from celery.canvas import Signature
from celery.result import AsyncResult, GroupResult

from lowtide import bulk, carried, hidden, lifetimes
from lowtide.carried import DEADLINE_HEADER, due_at
from lowtide.celery_seam import this_app
from lowtide.result import BatchResult


class TaskReference:
    """A batch task that runs elsewhere: what can be called of it, without its code.

    Args:
        name: The task's name, such as "tasks.summarize".
        app: The app whose broker and result backend reach the task's workers.
        queue: Queue that those workers consume; the app's routing decides when left out.
    """

    def __init__(self, name: str, app: Celery, queue: str | None = None) -> None:
        self.name = name
        self.app = app
        self.queue = queue
        lifetimes.extend(app)

    def __repr__(self) -> str:
        return f"<task_ref {self.name}>"

    def delay(self, *args: Any, **kwargs: Any) -> BatchResult:
        """Sends a call with these arguments."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        *,
        deadline: str | float | datetime | None = None,
        headers: dict[str, Any] | None = None,
        **options: Any,
    ) -> BatchResult:
        """Sends a call, as `BatchTask.apply_async` does."""
        due = due_at(deadline)
        headers = {**(headers or {}), **carried.take(options)}
        if due is not None:
            headers[DEADLINE_HEADER] = due
        if self.queue is not None:
            options.setdefault("queue", self.queue)
        if not hidden.shows_prompts(self.app):
            options.setdefault("argsrepr", hidden.veil(args or ()))
            options.setdefault("kwargsrepr", hidden.veil(kwargs or {}))
        result: BatchResult = self.app.send_task(
            self.name, args, kwargs, headers=headers or None, result_cls=self.AsyncResult, **options
        )
        return carried.read_from(result, headers)

    def delay_many(self, calls: Iterable[Any], **options: Any) -> GroupResult | AsyncResult:
        """Sends many calls in few messages; see `lowtide.bulk.delay_many`."""
        if self.queue is not None:
            options.setdefault("queue", self.queue)
        return bulk.delay_many(self.app, self.name, calls, **options)

    def signature(self, args: Any = None, kwargs: Any = None, **options: Any) -> Signature:
        """A signature for canvas; Celery's own, by name."""
        if self.queue is not None:
            options.setdefault("queue", self.queue)
        return self.app.signature(self.name, args, kwargs, options=options)

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """A signature with these arguments."""
        return self.signature(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """An immutable signature: it takes no result of the task before it."""
        return self.app.signature(
            self.name,
            args,
            kwargs,
            options={} if self.queue is None else {"queue": self.queue},
            immutable=True,
        )

    def AsyncResult(self, task_id: str, **kwargs: Any) -> BatchResult:  # noqa: N802 - Celery's name
        """The result of a call."""
        return BatchResult(task_id, task_name=self.name, app=self.app, **kwargs)


def task_ref(name: str, app: Celery | None = None, *, queue: str | None = None) -> TaskReference:
    """A batch task by its name: `task_ref("tasks.summarize").delay(text)`.

    Args:
        name: The task's name on the workers that have it.
        app: The app to send with; the current app when left out.
        queue: Queue that those workers consume, if not the app's default.
    """
    return TaskReference(name, app or this_app(), queue)
