"""A shorter way for what most tasks are: one answer, no links, nobody who listens.

Celery's tracer takes half of the time that a result takes, mostly to look for what such a task
has not. The shortcut does what is left of it, in the same order. Whatever is not surely the same
goes through the tracer: a task with links, a chord, hooks or code of its own for the result, a
signal's receiver, a tracer that somebody has put in the place of Celery's, another result backend
than Redis; and all that is no success.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from celery import Celery, signals
from celery._state import _task_stack
from celery.app import trace
from celery.app.task import Context
from celery.app.trace import LOG_SUCCESS, task_has_custom, trace_ok_t
from celery.loaders.base import BaseLoader
from celery.utils.saferepr import saferepr

from lowtide import early
from lowtide.celery_seam import context_of, is_celerys
from lowtide.celery_seam import shown as show
from lowtide.phases import answer_of
from lowtide.task import BatchTask

if TYPE_CHECKING:
    from lowtide.envelope import Envelope
    from lowtide.outcome_pipe import OutcomePipe

_HOOKS = ("before_start", "on_success", "after_return")
_LINKS = ("callbacks", "chain", "chord", "ignore_result")


class Shortcut:
    """Ends tasks of one slice.

    Args:
        app: The Celery app.
        pipe: What results are written to.
    """

    def __init__(self, app: Celery, pipe: OutcomePipe) -> None:
        self._pipe = pipe
        self._is_open = _is_unheard() and _is_bare(app.loader)
        # Of each task the length of its results in a log; None: it goes through the tracer.
        self._sizes: dict[str, int | None] = {}

    def end(
        self,
        task: Any,
        request: dict[str, Any],
        envelope: Envelope,
        outcome: tuple[str, dict[str, Any]],
    ) -> tuple[Any, Any, Any, Any] | None:
        """Ends a task with a good answer.

        Args:
            task: The task.
            request: The call, as Celery's tracer takes it.
            envelope: What the first phase left.
            outcome: (endpoint, response body).

        Returns:
            What Celery's tracer would return; None when the task has to go that way. Nothing is
            done then.

        Raises:
            Exception: The result backend failed; the pipe's `trouble` tells the same.
        """
        if not self._is_open or not envelope.final or any(map(request.get, _LINKS)):
            return None
        if task.name not in self._sizes:
            self._sizes[task.name] = task.resultrepr_maxsize if _suits(task, self._pipe) else None
        size = self._sizes[task.name]
        if size is None:
            return None
        start = time.monotonic()
        context = context_of(request)
        # Current as it would be: a log handler may ask for the task that a line is about.
        _task_stack.push(task)
        task.request_stack.push(context)
        try:
            value = answer_of(task, envelope, outcome).value(many=envelope.many)
            self._pipe.store(context.id, value, None, context)
            shown = saferepr(value, size)
            took = time.monotonic() - start
            if trace.logger.isEnabledFor(logging.INFO):
                _log(task, context, shown, took)
        except Exception:
            if self._pipe.trouble is not None:
                raise
            return None  # the tracer meets the same, and knows what to do with it
        finally:
            task.request_stack.pop()
            _task_stack.pop()
        return trace_ok_t(value, None, took, shown)


def _log(task: Any, context: Context, shown: str, took: float) -> None:
    trace.info(
        LOG_SUCCESS,
        {
            "id": context.id,
            "name": context.shadow or task.name,
            "return_value": shown,
            "runtime": took,
            "args": show(context.args),
            "kwargs": show(context.kwargs),
        },
    )


def _suits(task: Any, pipe: OutcomePipe) -> bool:
    """Whether Celery's tracer finds nothing at `task` but what the shortcut does."""
    return (
        isinstance(task, BatchTask)
        and is_celerys(task.__trace__)
        and is_celerys(type(task).__call__)
        and getattr(task.run, "__func__", None) is BatchTask._run_phase  # noqa: SLF001
        and getattr(task.complete, "__func__", None) is BatchTask.complete
        and task.postprocess is None
        and not any(task_has_custom(task, name) for name in _HOOKS)
        and not task.track_started
        and not task.ignore_result
        and pipe.collects_for(task.backend)
    )


def _is_unheard() -> bool:
    """Whether nobody but lowtide is told of a task's run."""
    unheard = not signals.task_prerun.receivers and not signals.task_postrun.receivers
    return unheard and early.hears_alone(signals.task_success)


def _is_bare(loader: Any) -> bool:
    """Whether the app's loader does nothing for a single task."""
    kind = type(loader)
    return bool(
        kind.on_task_init is BaseLoader.on_task_init
        and kind.on_process_cleanup is BaseLoader.on_process_cleanup
    )
