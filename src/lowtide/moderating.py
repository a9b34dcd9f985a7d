"""Tasks with `moderate=`: the input of each of their requests is judged before it is sent."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from celery.utils.log import get_logger

from lowtide.answer import Answer
from lowtide.calls import MODERATIONS
from lowtide.demands import NOW
from lowtide.errors import Flagged, LowtideError, ProviderError
from lowtide.moderation import checks_of, judge

if TYPE_CHECKING:
    from lowtide.calls import Call
    from lowtide.envelope import Outcome
    from lowtide.task import BatchTask

logger = get_logger(__name__)


def started(task: BatchTask, args: Any, kwargs: Any, history: Sequence[Outcome] = ()) -> object:
    """What the task's function returns, with the checks that its `moderate` asks for.

    Args:
        task: The task.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        history: How the task's requests ended so far.

    Raises:
        Flagged: `moderate="now"` found something.
        Exception: What the user's code raises.
    """
    returned = task.build(*args, **kwargs)
    if not task.moderate:
        return returned
    if task.moderate == NOW and not history and not inspect.isgenerator(returned):
        try:
            _check_now(task, task.to_call(returned))
        except ProviderError as error:
            logger.warning("Task %s: its input is checked by a batch: %s", task.name, error)
        else:
            return returned
    return _moderated(task, returned)


def _check_now(task: BatchTask, call: Call) -> None:
    from lowtide.phases import ask_once

    for check in _checks(call):
        outcome = ask_once(task, task.to_call(check))
        if isinstance(outcome, LowtideError):
            raise outcome
        _judge(task, Answer(*outcome))


def _moderated(task: BatchTask, returned: Any) -> Generator[Any, Any, Any]:
    """As the function, with a check before each of its requests."""
    from lowtide.phases import completed

    if not inspect.isgenerator(returned):
        call = task.to_call(returned)
        answer = yield from _checked(task, call)
        return completed(task, answer, is_many=call.many)
    steps: Generator[Any, Any, Any] = returned
    try:
        asked = next(steps)
        while True:
            call = task.to_call(asked)
            try:
                answer = yield from _checked(task, call)
            except LowtideError as error:
                asked = steps.throw(error)
            else:
                asked = steps.send(answer)
    except StopIteration as end:
        return end.value
    finally:
        steps.close()


def _checked(task: BatchTask, call: Call) -> Generator[Any, Any, Answer]:
    for check in _checks(call):
        _judge(task, (yield check))
    answer: Answer = yield call
    return answer


def _checks(call: Call) -> list[Call]:
    """The moderations of a call's input; one that is a moderation itself needs none."""
    return [] if call.endpoint == MODERATIONS else checks_of(call)


def _judge(task: BatchTask, answer: Answer) -> None:
    try:
        judge(answer)
    except Flagged as flagged:
        raise flagged.about(task=task.name, task_id=task.request.id) from None
