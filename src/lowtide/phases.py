"""The phases of a batch task as Celery's tracer meets them, in `task.run`."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any

from lowtide import judging, moderating, steps
from lowtide.answer import Answer
from lowtide.calls import CHAT, RESPONSES, Call
from lowtide.celery_seam import is_users_exit, serializer_of
from lowtide.envelope import Body, Envelope, Outcome, record
from lowtide.errors import (
    BufferUnreachable,
    InvalidRequest,
    KilledItsWorker,
    LedgerUnavailable,
    LowtideError,
)
from lowtide.lane import Lane
from lowtide.turn import Asked, Turn, many, turn_of

if TYPE_CHECKING:
    from lowtide.task import BatchTask


def play(task: BatchTask, turn: Turn, args: Any, kwargs: Any) -> Any:
    """Does what `turn` is for; leaves in `turn.step` what was found.

    Returns:
        The task's result.

    Raises:
        Asked: It wants an answer first.
        Exception: What the user's code raises, or the provider's error.
    """
    if turn.error is not None:
        raise turn.error
    if turn.known is not None:
        turn.step = turn.known
    elif turn.envelope is None:
        turn.step = _advanced(task, turn, args, kwargs)
    else:
        with _staying(task, turn.task_id):
            if turn.envelope.final:
                turn.step = steps.Done(_result(task, turn.envelope, turn.history[-1]))
            else:
                turn.step = _advanced(task, turn, args, kwargs)
    if isinstance(turn.step, steps.Done):
        return turn.step.value
    raise Asked


def _advanced(task: BatchTask, turn: Turn, args: Any, kwargs: Any) -> steps.Step:
    returned = moderating.started(task, args, kwargs, turn.history)
    return steps.advance(returned, turn.history, task.to_call)


@contextmanager
def _staying(task: BatchTask, task_id: str) -> Iterator[None]:
    """In the block, user code that calls `sys.exit` fails: other tasks of its slice come after it.

    Raises:
        KilledItsWorker: It did.
    """
    try:
        yield
    except SystemExit as exited:
        if not is_users_exit(exited):
            raise
        raise KilledItsWorker(
            f"Task {task.name}[{task_id}] called sys.exit({exited.code!r}) after its answer; raise "
            "an error in its place.",
            {"task": task.name, "task_id": task_id},
        ) from exited


def defer(task: BatchTask, args: Any, kwargs: Any) -> Any:
    """The first phase of one task alone, as the ordinary strategy runs it.

    Raises:
        Deferred: The request is in its lane's buffer.
        Returned: Buffer or ledger could not be reached; the message is to go back.
        Exception: What the user's code raises.
    """
    from lowtide import accept, early, worker_request

    context = task.request
    early.check(task, context)
    # Before the user's code, which may change its arguments.
    embed = {
        "callbacks": context.callbacks,
        "errbacks": context.errbacks,
        "chain": context.chain,
        "chord": context.chord,
    }
    body = Body.of(args, kwargs, embed, serializer_of(context) or task.serializer or "json")
    try:
        earlier = accept.earlier_answers(task, context)
    except LedgerUnavailable as error:
        raise worker_request.Returned(error.message) from error
    history: list[Outcome] = []
    while True:
        with turn_of(Turn(context.id, taken=True)):
            step = steps.advance(
                moderating.started(task, args, kwargs, history), history, task.to_call
            )
        if isinstance(step, steps.Done):
            return step.value
        envelope = Envelope.seal(context, body)
        envelope.history = [record(outcome) for outcome in history]
        request = accept.make_request(task, context, step, envelope)
        known = accept.known_answer(task, step, request, len(history), earlier)
        if known is None:
            break
        if step.ends:
            return _result(task, envelope, known)
        history = [*history, known]
        args, kwargs, _ = body.load(task.app)
    try:
        accept.hand_over(task.app, [request])
    except BufferUnreachable as error:
        raise worker_request.Returned(error.message) from error
    raise worker_request.Deferred(request.lane.key)


def run_now(task: BatchTask, args: Any, kwargs: Any) -> Any:
    """Both phases at once, through the provider's synchronous API at full price.

    Raises:
        LowtideError: The request cannot be made, or the provider failed it.
    """
    returned = moderating.started(task, args, kwargs)
    step = steps.run_through(returned, task.to_call, lambda call: _ask_now(task, call))
    if isinstance(step, steps.Done):
        return step.value
    outcome = _ask_now(task, step.call)
    if isinstance(outcome, LowtideError):
        raise outcome
    answer = Answer(*outcome, step.call.output)
    return completed(task, answer, is_many=step.call.many)


def _ask_now(task: BatchTask, call: Call) -> Outcome:
    """The answer that the task gets, asked for again as often as it may be."""
    attempts: list[dict[str, Any]] = []
    while True:
        outcome = ask_once(task, call)
        if isinstance(outcome, LowtideError):
            return outcome
        found = judging.judge(task, Answer(*outcome, call.output), attempts)
        if not isinstance(found, judging.Again):
            return outcome if found is None else found.about(task=task.name)
        attempts = found.attempts
        try:
            call = judging.next_call(task, call, found)
        except InvalidRequest as refused:
            return judging.given_up(found, refused).about(task=task.name)


def ask_once(task: BatchTask, call: Call) -> Outcome:
    """What the provider's synchronous API says to a call."""
    from lowtide import accept, runtime

    # Checked as a batch would check it: what works eagerly works deferred.
    lane, body, _ = accept.encoded(task, call)
    try:
        answer = runtime.of(task.app).run_now(lane, json.loads(body))
    except LowtideError as error:
        return explained(error, task, task.request.id, lane)
    return call.endpoint, answer


def explained(
    error: LowtideError, task: BatchTask, task_id: str | None, lane: Lane
) -> LowtideError:
    """The provider's error with the task and the lane in its details."""
    return error.about(task=task.name, task_id=task_id, lane=lane.key)


def _result(task: BatchTask, envelope: Envelope, outcome: Outcome) -> Any:
    """A plain function's result."""
    if isinstance(outcome, LowtideError):
        raise outcome
    return completed(task, answer_of(task, envelope, outcome), is_many=envelope.many)


def completed(task: BatchTask, answer: Answer, *, is_many: bool) -> Any:
    """What the task makes of the answer to its only request."""
    token = many.set(is_many)
    try:
        return steps.jsonable(task.complete(answer))
    finally:
        many.reset(token)


def answer_of(task: BatchTask, envelope: Envelope, outcome: tuple[str, dict[str, Any]]) -> Answer:
    """The answer to the request of `envelope`, with the output model that it was asked for."""
    endpoint, body = outcome
    output = task.output if endpoint in (CHAT, RESPONSES) else None
    return Answer(endpoint, body, _model(envelope.output) if envelope.output else output)


def _model(path: str) -> Any:
    """The output model at `path`, "module:qualname"."""
    module, _, name = path.partition(":")
    return reduce(getattr, name.split("."), importlib.import_module(module))
