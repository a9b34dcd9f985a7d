"""A shorter way for what most tasks are: one answer, no links, nobody who listens.

Celery's tracer takes half of the time that a result takes, mostly to look for what such a task
has not. The shortcut does what is left of it, one step for all tasks of a slice, then the next.
Whatever is not surely the same goes through the tracer: a task with links, a chord, hooks or code
of its own for the result, a signal's receiver, a tracer that somebody has put in the place of
Celery's, another result backend than Redis; and all that is no success.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from celery import Celery, signals
from celery.app import trace
from celery.app.task import Context
from celery.app.trace import LOG_SUCCESS, task_has_custom, trace_ok_t
from celery.loaders.base import BaseLoader
from celery.utils.saferepr import saferepr
from msgspec import Struct

from lowtide import early
from lowtide.celery_seam import context_of, is_celerys
from lowtide.celery_seam import shown as show
from lowtide.current import Current
from lowtide.phases import answer_of
from lowtide.task import BatchTask

if TYPE_CHECKING:
    from lowtide.envelope import Envelope
    from lowtide.outcome_pipe import OutcomePipe

_HOOKS = ("before_start", "on_success", "after_return")
_LINKS = ("callbacks", "chain", "chord", "ignore_result")


class Plain(Struct, frozen=True):
    """A task that has nothing to do but to return its answer.

    Attributes:
        number: Its place among the tasks of its slice.
        task: The task.
        request: The call, as Celery's tracer takes it.
        envelope: What the first phase left.
        outcome: (endpoint, response body).
    """

    number: int
    task: Any
    request: dict[str, Any]
    envelope: Envelope
    outcome: tuple[str, dict[str, Any]]


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

    def takes(self, task: Any, request: dict[str, Any], envelope: Envelope) -> bool:
        """Whether nobody could tell that a good answer goes past the tracer.

        Args:
            task: The task.
            request: The call, as Celery's tracer takes it.
            envelope: What the first phase left.
        """
        if not self._is_open or not envelope.final or any(map(request.get, _LINKS)):
            return False
        if task.name not in self._sizes:
            self._sizes[task.name] = task.resultrepr_maxsize if _suits(task, self._pipe) else None
        return self._sizes[task.name] is not None

    def end(self, tasks: Sequence[Plain]) -> dict[int, tuple[Any, Any, Any, Any]]:
        """Ends tasks that it takes.

        One step is done for all of them, then the next: a processor that does the same again and
        again has it in its caches, and takes two thirds of the time.

        Returns:
            number → what Celery's tracer would return, of those whose results are stored and
            logged. The others have to go through the tracer, unless the pipe tells of trouble
            with the result backend.
        """
        with Current() as current:
            made = [each for plain in tasks if (each := self._made(plain, current)) is not None]
            stored = self._stored(made, current)
            if trace.logger.isEnabledFor(logging.INFO):
                stored = [each for each in stored if _is_logged(each, current)]
        return {each.number: trace_ok_t(each.value, None, each.took, each.shown) for each in stored}

    def _made(self, plain: Plain, current: Current) -> _Made | None:
        start = time.monotonic()
        task, context = plain.task, context_of(plain.request)
        current.set(task, context)
        try:
            answer = answer_of(task, plain.envelope, plain.outcome)
            value = answer.value(many=plain.envelope.many)
            shown = saferepr(value, size) if (size := self._sizes[task.name]) else _hidden()
        except Exception:
            return None  # the tracer meets the same, and knows what to do with it
        return _Made(plain.number, task, context, value, shown, time.monotonic() - start)

    def _stored(self, made: Sequence[_Made], current: Current) -> list[_Made]:
        stored: list[_Made] = []
        sure = 0
        for each in made:
            current.set(each.task, each.context)
            try:
                self._pipe.store(each.context.id, each.value, None, each.context)
            except Exception:
                if self._pipe.trouble is not None:
                    return stored[:sure]
                continue  # it cannot be stored: what to do then is the tracer's to say, too
            stored.append(each)
            if self._pipe.is_empty:
                sure = len(stored)
        try:
            self._pipe.flush()
        except Exception:
            return stored[:sure]
        return stored


class _Made(Struct, frozen=True):
    """A task's result.

    Attributes:
        number: As the task's.
        shown: The result, as a log shows it.
        took: Seconds.
    """

    number: int
    task: Any
    context: Context
    value: Any
    shown: str
    took: float


@cache
def _hidden() -> str:
    """What a log shows of each result while it may show nothing of any."""
    return str(saferepr("", 0))


def _is_logged(made: _Made, current: Current) -> bool:
    current.set(made.task, made.context)
    try:
        _log(made)
    except Exception:
        return False  # a handler's filter, maybe: the tracer meets the same
    return True


def _log(made: _Made) -> None:
    context = made.context
    trace.info(
        LOG_SUCCESS,
        {
            "id": context.id,
            "name": context.shadow or made.task.name,
            "return_value": made.shown,
            "runtime": made.took,
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
        and getattr(task.run, "__func__", None) is type(task).phased
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
