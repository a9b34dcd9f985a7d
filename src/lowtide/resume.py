"""The second phase of many tasks at once: each ends as Celery would have ended it.

Tasks run through Celery's own tracer with their stored envelope, so that results, links, chains,
chords, errbacks, retries, hooks and signals are Celery's. What makes it fast: plain successes go
past the tracer, result writes and chord parts go out in groups, and so do events.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, TypeAlias

from celery import Celery, states
from celery.app.task import Context
from celery.exceptions import Reject
from celery.utils.log import get_logger
from kombu.exceptions import OperationalError
from msgspec import Struct

from lowtide import endings, finality, judging, phases, steps
from lowtide.accept import make_request, run_step, trace
from lowtide.celery_seam import context_of
from lowtide.envelope import Envelope, Outcome, recall, unpack
from lowtide.errors import EnvelopeError, InvalidRequest, LowtideError
from lowtide.events import TaskEvents
from lowtide.outcome_pipe import OutcomePipe
from lowtide.request import Request
from lowtide.shortcut import Plain, Shortcut
from lowtide.turn import Turn

logger = get_logger(__name__)

Ending: TypeAlias = Literal[
    "SUCCESS",
    "FAILURE",
    "RETRY",
    "REVOKED",
    "IGNORED",
    "CONTINUED",
    "SKIPPED",
    "UNKNOWN",
    "AGAIN",
]


class Resumption(Struct, frozen=True):
    """A request with its outcome.

    Attributes:
        request: The request, as it was accepted.
        outcome: (endpoint, response body), or the error that the task is to get.
    """

    request: Request
    outcome: Outcome

    @property
    def custom_id(self) -> str:
        """The request's name."""
        return self.request.custom_id


class Resumed(Struct, frozen=True):
    """What became of a task.

    Attributes:
        custom_id: The request's name.
        state: The request is done with, for good, when it is one of
            "SUCCESS", "FAILURE": the result is stored, links and chords are told;
            "RETRY": the task was sent again by Celery, with a request of its own to come;
            "REVOKED": the task was revoked meanwhile, its chord is told;
            "IGNORED": the task replaced itself, or raised `Ignore`;
            "CONTINUED": a generator asks its next, or the model is asked again because its answer
            does not validate: append `next` before this one is settled;
            "SKIPPED": the task had its final state already.
            It is to be delivered later when it is
            "UNKNOWN": this replica does not know the task, or not this envelope's version;
            "AGAIN": the result backend failed: nothing is sure to be stored.
        next: The task's next request.
        ended: How the task ended, if it did, for those who are to be told.
    """

    custom_id: str
    state: Ending
    next: Request | None = None
    ended: endings.Ended | None = None


def resume(
    app: Celery,
    items: Sequence[Resumption],
    hostname: str,
    *,
    revoked: Collection[str] = (),
    may_write: Callable[[], bool] = lambda: True,
) -> list[Resumed]:
    """Ends tasks, or takes generators to their next request. One bad item never hurts another.

    Args:
        app: The Celery app that has the tasks.
        items: Requests with their outcomes; an item that is there twice is done once.
        hostname: The worker's node name, for results and events.
        revoked: Ids of tasks known to be revoked, where the result backend may not tell.
        may_write: Asked before anything is stored: whether nobody else can have taken over.

    Returns:
        What became of each item, in their order.

    Raises:
        Exception: The result backend could not be asked for what is final; nothing was done.
    """
    opened = [_open(app, item, hostname) for item in items]
    stored = finality.stored(
        (task.task, task.task_id) for task in opened if isinstance(task, _Opened)
    )
    events = TaskEvents(app, hostname)
    ends: dict[int, Resumed] = {}
    first: dict[str, int] = {}
    waiting: dict[int, _Opened] = {}
    for number, task in enumerate(opened):
        if isinstance(task, Resumed):
            ends[number] = task
        elif first.setdefault(task.custom_id, number) == number:
            waiting[number] = task
    with OutcomePipe(app, may_write) as pipe:
        shortcut, final = Shortcut(app, pipe), stored.keys() | set(revoked)
        plain = [
            Plain(number, task.task, task.request, task.envelope, outcome)
            for number, task in waiting.items()
            if task.task_id not in final and (outcome := _plain(task, shortcut)) is not None
        ]
        for number, traced in shortcut.end(plain).items():
            ends[number] = _ended(waiting.pop(number), traced, events)
        sure = len(ends)
        for number, task in waiting.items():
            if pipe.trouble is not None:
                break
            ends[number] = _end(task, pipe, events, stored.get(task.task_id), revoked)
            if pipe.is_empty and pipe.trouble is None:
                sure = len(ends)
    if pipe.trouble is not None:
        return _unsure(opened, dict(islice(ends.items(), sure)), pipe.trouble)
    events.send()
    again = [number for number, task in waiting.items() if task.task_id in pipe.untold]
    ends |= {number: Resumed(waiting[number].custom_id, "AGAIN") for number in again}
    return [
        ends[number] if number in ends else Resumed(task.custom_id, "SKIPPED")
        for number, task in enumerate(opened)
    ]


class _Opened(Struct, frozen=True):
    """An item whose envelope is read."""

    item: Resumption
    task: Any
    envelope: Envelope
    request: dict[str, Any]

    @property
    def custom_id(self) -> str:
        return self.item.custom_id

    @property
    def task_id(self) -> str:
        return self.item.request.task_id

    @property
    def context(self) -> Context:
        return context_of(self.request)

    def ended(self, ending: endings.Ending) -> endings.Ended:
        """The task with its ending."""
        return endings.Ended(ending, self.task, self.request, self.envelope.custom_headers)

    @property
    def has_links(self) -> bool:
        return bool(self.request.get("callbacks") or self.request.get("chain"))

    @property
    def has_chord(self) -> bool:
        return bool(self.request.get("chord"))


def _open(app: Celery, item: Resumption, hostname: str) -> _Opened | Resumed:
    request = item.request
    task = app.tasks.get(request.task)
    if task is None:
        logger.error(
            "Task %s[%s] has its answer, but this worker does not know the task; it is left for "
            "one that does. Import its module here (`include=`), or start such a worker.",
            request.task,
            request.task_id,
        )
        return Resumed(item.custom_id, "UNKNOWN")
    try:
        envelope = unpack(request.envelope)
        loaded = envelope.load(app, request.task_id, request.task, hostname)
    except Exception as error:
        return _unreadable(app, item, error)
    return _Opened(item, task, envelope, loaded)


def _unreadable(app: Celery, item: Resumption, error: Exception) -> Resumed:
    """Ends a task of which no more than its id is known."""
    request = item.request
    if isinstance(error, EnvelopeError) and error.code == "version":
        logger.error("Task %s[%s] is left: %s", request.task, request.task_id, error)
        return Resumed(item.custom_id, "UNKNOWN")
    logger.error("Task %s[%s] cannot be ended: %s", request.task, request.task_id, error)
    broken = EnvelopeError(f"The stored task cannot be read: {error}", {"code": "damaged"})
    try:
        app.backend.mark_as_failure(request.task_id, explained(broken, request))
    except Exception:
        logger.exception("The failure of task %s could not be stored", request.task_id)
        return Resumed(item.custom_id, "AGAIN")
    return Resumed(item.custom_id, "FAILURE")


def _end(
    opened: _Opened,
    pipe: OutcomePipe,
    events: TaskEvents,
    stored: dict[str, Any] | None,
    revoked: Collection[str],
) -> Resumed:
    """Ends one task, or takes it to its next request."""
    try:
        pipe.check()
        pipe.watch(opened.task.backend)
        if stored is not None:
            pipe.flush()
            state = finality.repeat(opened.task, opened.context, stored)
            if state == "REVOKED":
                events.revoked(opened.task, opened.task_id)
            ending = endings.of_meta(opened.task.app, stored)
            return Resumed(opened.custom_id, state, ended=opened.ended(ending))
        if opened.task_id in revoked:
            pipe.flush()
            finality.revoke(opened.task, opened.context)
            events.revoked(opened.task, opened.task_id)
            ending = endings.revoked(opened.task.app)
            return Resumed(opened.custom_id, "REVOKED", ended=opened.ended(ending))
        ended = _traced(opened, events)
        if opened.has_links:
            # As near to its links as Celery stores a result.
            pipe.flush()
    except Exception:
        if pipe.trouble is None:
            logger.exception("Task %s[%s] could not be ended", opened.task.name, opened.task_id)
        return Resumed(opened.custom_id, "AGAIN")
    return ended


def _traced(opened: _Opened, events: TaskEvents) -> Resumed:
    """Ends the task by Celery's tracer, unless it is a generator that asks again."""
    request, outcome = opened.item.request, opened.item.outcome
    if isinstance(outcome, LowtideError):
        outcome = explained(outcome, request)
    else:
        judged = _judged(opened, outcome)
        if isinstance(judged, Request):
            events.buffered(opened.task, opened.task_id, judged.lane.key)
            return Resumed(opened.custom_id, "CONTINUED", judged)
        outcome = judged
    history = [*map(recall, opened.envelope.history), outcome]
    turn = Turn(request.task_id, history=history, envelope=opened.envelope)
    if not opened.envelope.final:
        try:
            step = run_step(opened.task, opened.context, turn)
            if isinstance(step, steps.Asks):
                following = _following(opened, step, outcome)
                events.buffered(opened.task, opened.task_id, following.lane.key)
                return Resumed(opened.custom_id, "CONTINUED", following)
            turn = Turn(request.task_id, known=step)
        except Exception as error:
            turn = Turn(request.task_id, error=error)
    opened.request["_children"] = []
    traced = trace(opened.task.app, opened.task, opened.request, turn)
    return _ended(opened, traced, events)


def _plain(opened: _Opened, shortcut: Shortcut) -> tuple[str, dict[str, Any]] | None:
    """The answer of a task that the shortcut takes; None when the task goes through the tracer."""
    outcome = opened.item.outcome
    if isinstance(outcome, LowtideError) or not shortcut.takes(
        opened.task, opened.request, opened.envelope
    ):
        return None
    try:
        judged = _judged(opened, outcome)
    except Exception:
        return None  # what it is becomes known when the task is ended
    if isinstance(judged, LowtideError | Request):
        return None
    opened.request["_children"] = []
    return judged


def _ended(opened: _Opened, traced: tuple[Any, Any, Any, Any], events: TaskEvents) -> Resumed:
    """What Celery's tracer, or the shortcut, told of the task's end."""
    info = traced[1]
    state = states.SUCCESS if info is None else info.state
    if state == states.REJECTED:
        return _rejected(opened, info.retval)
    events.ended(opened.task, opened.envelope, opened.task_id, traced)
    ending = endings.traced(opened.task.app, traced, opened.request["_children"])
    ended = None if ending is None else opened.ended(ending)
    return Resumed(opened.custom_id, state, ended=ended)


def _judged(opened: _Opened, outcome: tuple[str, dict[str, Any]]) -> Outcome | Request:
    """What the task gets for an answer, or the request that asks for the answer again."""
    task, request = opened.task, opened.item.request
    if not (task.output_retries or task.errors_on):
        return outcome
    try:
        answer = phases.answer_of(task, opened.envelope, outcome)
    except (ImportError, AttributeError):
        return outcome  # the run itself tells that the output model is gone
    found = judging.judge(task, answer, opened.envelope.invalid)
    if isinstance(found, judging.Again):
        try:
            return judging.next_request(task, request, unpack(request.envelope), found)
        except InvalidRequest as refused:
            found = judging.given_up(found, refused)
    return outcome if found is None else explained(found, request)


def _following(opened: _Opened, step: steps.Asks, outcome: Outcome) -> Request:
    """The generator's next request, with its history one outcome longer.

    Raises:
        InvalidRequest: It cannot be sent.
    """
    envelope = unpack(opened.item.request.envelope)
    envelope.history = envelope.followed_by(outcome)
    return make_request(opened.task, opened.context, step, envelope)


def _rejected(opened: _Opened, error: Reject) -> Resumed:
    """There is no message to reject. Celery rejects one, too, whose retry it could not send."""
    if isinstance(error.reason, OperationalError):
        logger.warning("The retry of task %s was not sent: %s", opened.task_id, error.reason)
        return Resumed(opened.custom_id, "AGAIN")
    opened.task.backend.mark_as_failure(opened.task_id, error, request=opened.context)
    ending = endings.failed(opened.task.app, error)
    return Resumed(opened.custom_id, "FAILURE", ended=opened.ended(ending))


def _unsure(
    opened: Sequence[_Opened | Resumed], sure: Mapping[int, Resumed], trouble: Exception
) -> list[Resumed]:
    """What is known when the result backend failed: chord parts are only sure at the very end."""
    logger.warning("The result backend failed, answers wait and are tried again: %s", trouble)
    return [
        Resumed(task.custom_id, "AGAIN")
        if number not in sure or (isinstance(task, _Opened) and task.has_chord)
        else sure[number]
        for number, task in enumerate(opened)
    ]


def explained(error: LowtideError, request: Request) -> LowtideError:
    """The error with the task and the lane in its details."""
    return error.about(task=request.task, task_id=request.task_id, lane=request.lane.key)
