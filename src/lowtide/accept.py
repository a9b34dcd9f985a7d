"""The first phase of many tasks at once: run each function, put all requests into their buffers.

Runs in a pool process. What a function raises is given to Celery's own tracer, which retries,
stores, links and reports it as for any task; so is a result that needs no model after all.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from celery import Celery, signals
from celery.app.task import Context
from celery.app.trace import task_has_custom, trace_task
from celery.utils.log import get_logger
from redis.exceptions import RedisError

from lowtide import (
    answers,
    carried,
    early,
    endings,
    failpoints,
    inputs,
    judging,
    quiet,
    runtime,
    steps,
)
from lowtide.answer import Answer
from lowtide.celery_seam import context_of, is_users_exit
from lowtide.current import Current
from lowtide.envelope import Body, Earlier, Envelope, Outcome, record
from lowtide.errors import BufferUnreachable, InvalidRequest, LedgerUnavailable
from lowtide.ids import custom_id, run_number
from lowtide.outcome_pipe import OutcomePipe
from lowtide.request import Request, digest, encode
from lowtide.task import BatchTask
from lowtide.turn import Asked, Turn, turn_of

if TYPE_CHECKING:
    from lowtide.calls import Call
    from lowtide.lane import Lane

logger = get_logger(__name__)
_WAITS = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0)


class Incoming(NamedTuple):
    """One task message, as it goes to a pool process.

    Attributes:
        task: Name of the task.
        headers: The message's headers with what the worker added: Celery's request dict.
        body: The message's body.
    """

    task: str
    headers: dict[str, Any]
    body: Body


class Accepted(NamedTuple):
    """What became of one message.

    Attributes:
        end: "buffered": its request is in the buffer of `lane`. "traced": the task has ended
            already, `traced` is what Celery's tracer gave. "returned": buffer, ledger or
            result backend cannot be reached, the message goes back to the queue. "alone":
            something unforeseen; the message is to be handled by itself, in the ordinary way.
    """

    end: Literal["buffered", "traced", "returned", "alone"]
    lane: str = ""
    traced: tuple[int, Any, Any] = (0, None, None)


class _Waiting(NamedTuple):
    """A first phase that found a request."""

    task: BatchTask
    headers: dict[str, Any]
    request: Request


def accept(app: Celery, incoming: Sequence[Incoming], hostname: str) -> list[Accepted]:
    """Runs the first phase of each message; returns when all requests are in their buffers.

    Never raises, unless the worker itself is to end: one bad message must not end the others.
    """
    found: list[Accepted | _Waiting] = []
    for message in incoming:
        try:
            found.append(_first_phase(app, message, hostname))
        except (Exception, SystemExit) as error:
            # Of `sys.exit()` a pool of threads or greenlets would tell the others only that they
            # are lost.
            if isinstance(error, SystemExit) and not is_users_exit(error):
                raise
            logger.exception("Task %s could not be accepted with others", message.task)
            found.append(Accepted("alone"))
    waiting = [item for item in found if isinstance(item, _Waiting)]
    ends = iter(_append(app, waiting))
    return [next(ends) if isinstance(item, _Waiting) else item for item in found]


def hand_over(app: Celery, requests: Sequence[Request]) -> None:
    """Puts requests into their buffers, with patience.

    Raises:
        BufferUnreachable: Redis did not answer for some seconds; nothing is lost by trying again.
    """
    rt = runtime.of(app)
    for wait in (*_WAITS, None):
        try:
            failpoints.reach("accept.taken")
            rt.accept(requests)
            failpoints.reach("accept.appended")
        except (RedisError, OSError) as error:
            if wait is None:
                raise BufferUnreachable(
                    f"Redis of the buffers does not answer ({error}); {len(requests)} calls go "
                    "back to their queue."
                ) from error
            rt.clock.sleep(wait)
        else:
            return


def encoded(task: BatchTask, call: Call) -> tuple[Lane, bytes, int]:
    """A complete call as `request.encode` gives it, checked against what the provider takes.

    Raises:
        SettingsError: Nobody set the task's account.
        InvalidRequest: The provider would refuse it.
    """
    from lowtide.providers import account_of

    settings = runtime.of(task.app).settings
    account_of(task.account, settings)
    profile = settings.profile(task.account)
    profile.check(call.endpoint)
    inputs.check(profile, call)
    most = min(settings.max_bytes, profile.max_bytes)
    return encode(call, account=task.account, max_bytes=most)


def make_request(
    task: BatchTask, context: Context, step: steps.Asks, envelope: Envelope
) -> Request:
    """The request that `step` asks for.

    Args:
        task: The task.
        context: Its request, as Celery names a task's context.
        step: What the function wants answered.
        envelope: The task's envelope, history included; it is completed and packed here.

    Raises:
        InvalidRequest: It cannot be sent.
    """
    call = step.call
    lane, body, tokens = encoded(task, call)
    envelope.final = step.ends
    envelope.many = step.ends and call.many
    envelope.invalid, envelope.output = [], None
    judged = step.ends or task.output_retries
    if judged and call.output is not None and call.output is not task.output:
        envelope.output = model_path(call.output)
    wants = carried.read(task, carried.headers_of(context))
    texts = {"task": task.name, "task id": context.id, "model": lane.model, "tenant": wants.tenant}
    for what, text in texts.items():
        if text is not None and not carried.is_storable(text):
            raise InvalidRequest(f"The {what} {text!r} {carried.UNSTORABLE}")
    run = run_number(envelope.retries, envelope.replaced_task_nesting)
    return Request(
        custom_id=custom_id(context.id, run, envelope.step),
        task_id=context.id,
        task=task.name,
        lane=own_lane(task, lane, wants.tenant),
        body=body,
        envelope=envelope.pack(),
        tokens=tokens,
        deadline=wants.deadline,
        tenant=wants.tenant,
        share=digest(lane, body) if wants.coalesce else None,
        cache=wants.cache,
        max_wait=wants.max_wait,
    )


def own_lane(task: BatchTask, lane: Lane, tenant: str | None) -> Lane:
    """The lane of a call, one of its tenant's or its task's own where `share_by` says so."""
    by = runtime.of(task.app).settings.share_by
    if by == "none":
        return lane
    return replace(lane, share=task.name if by == "task" else tenant or "")


def known_answer(
    task: BatchTask,
    step: steps.Asks,
    request: Request,
    number: int,
    earlier: Earlier | None,
) -> Outcome | None:
    """The answer to the very same that is there already; None without.

    A retry asks anew what its last try ended with. What that was answered before, which let it go
    on, it is not asked for again.

    Args:
        task: The task.
        step: What its function asks.
        request: The same as it would be sent.
        number: How many answers the function was given before.
        earlier: What earlier tries were answered; None for a first one.
    """
    if earlier is not None and not step.ends:
        outcome = earlier.outcomes.get((number, request.body))
        if outcome is not None:
            return outcome
    asks_anew = earlier is not None and number >= earlier.steps
    if not request.cache or asks_anew:
        return None
    body = answers.find(runtime.of(task.app), request)
    if body is None:
        return None
    answer = Answer(request.lane.endpoint, body, step.call.output)
    return (answer.endpoint, body) if judging.judge(task, answer) is None else None


def earlier_answers(task: BatchTask, context: Context) -> Earlier | None:
    """What earlier tries of the task were answered; None for the first.

    Raises:
        LedgerUnavailable: It cannot be asked.
    """
    if not context.retries:
        return None
    if not task.moderate and not inspect.isgeneratorfunction(inspect.unwrap(task.build)):
        return Earlier({}, 0)
    run = run_number(context.retries, context.replaced_task_nesting or 0)
    return runtime.of(task.app).earlier(context.id, range(run - context.retries, run))


def model_path(model: type) -> str:
    """Where to import `model` from, as "module:qualname".

    Raises:
        InvalidRequest: It is defined inside a function, so no other replica can find it.
    """
    if "<locals>" in model.__qualname__:
        raise InvalidRequest(
            f"The output model {model.__qualname__} is defined inside a function; move it to "
            "the top of its module, or set output= on the task.",
            {"param": "output"},
        )
    return f"{model.__module__}:{model.__qualname__}"


def trace(
    app: Celery, task: BatchTask, request: dict[str, Any], turn: Turn
) -> tuple[Any, Any, Any, Any]:
    """Runs Celery's tracer with `turn`; (R, I, T, Rstr) as Celery names them.

    Args:
        request: What the message and the worker know, args and kwargs included.
    """
    with turn_of(turn):
        return trace_task(task, request["id"], request["args"], request["kwargs"], request, app=app)


def _first_phase(app: Celery, message: Incoming, hostname: str) -> Accepted | _Waiting:
    task = app.tasks[message.task]
    args, kwargs, embed = message.body.load(app)
    # The tracer must get what the message held, whatever the user's code does to its arguments.
    request = dict(message.headers)
    request.update(args=args, kwargs=kwargs, hostname=hostname, is_eager=False, **embed)
    context = context_of(request)
    turn = Turn(context.id)
    if not isinstance(task, BatchTask):
        # No batch task, called by its name with others: it has one phase.
        return _traced(app, task, request, turn)
    try:
        earlier = earlier_answers(task, context)
    except LedgerUnavailable as error:
        quiet.warn(logger, "ledger", "Task %s goes back to its queue: %s", message.task, error)
        return Accepted("returned")
    try:
        early.check(task, context)
        step = run_step(task, context, turn)
        while isinstance(step, steps.Asks):
            envelope = Envelope.seal(context, message.body)
            envelope.history = [record(outcome) for outcome in turn.history]
            wanted = make_request(task, context, step, envelope)
            known = known_answer(task, step, wanted, len(turn.history), earlier)
            if known is None:
                return _Waiting(task, request, wanted)
            turn = Turn(context.id, history=[*turn.history, known], envelope=envelope)
            if step.ends:
                return _traced(app, task, request, turn)
            step = run_step(task, context, turn)
        verdict = Turn(context.id, known=step)
    except Exception as error:
        verdict = Turn(context.id, error=error)
    return _traced(app, task, request, verdict)


def run_step(task: BatchTask, context: Context, turn: Turn) -> steps.Step:
    """Runs the task's function up to its next request, or its end, without Celery's tracer.

    The task is current and its signals are sent, as the tracer would have it. To end a task
    without a result is dear there: it makes a traceback of it.

    Raises:
        Exception: Whatever the user's code raises.
    """
    returned = None
    with _current_task(task, context), turn_of(turn), suppress(Asked):
        run = task if task_has_custom(task, "__call__") else task.run
        if task_has_custom(task, "before_start"):
            task.before_start(context.id, context.args, context.kwargs)
        returned = run(*context.args, **context.kwargs)
    # A `__call__` of the user's own may have answered without running the function.
    return turn.step if turn.step is not None else steps.Done(returned)


@contextmanager
def _current_task(task: BatchTask, context: Context) -> Iterator[None]:
    told = {"sender": task, "task_id": context.id, "task": task}
    told |= {"args": context.args, "kwargs": context.kwargs}
    with Current() as current:
        current.set(task, context)
        try:
            if signals.task_prerun.receivers:
                signals.task_prerun.send(**told)
            yield
        finally:
            if signals.task_postrun.receivers:
                signals.task_postrun.send(**told, retval=None, state="BUFFERED")


def _traced(app: Celery, task: BatchTask, request: dict[str, Any], turn: Turn) -> Accepted:
    children = request["_children"] = []
    with OutcomePipe(app, collects=False) as pipe:
        pipe.watch(task.backend)
        traced = trace(app, task, request, turn)
    if pipe.trouble is not None:
        quiet.warn(logger, "results", "Task %s goes back to its queue: %s", task.name, pipe.trouble)
        return Accepted("returned")
    try:
        early.tell(task, request, endings.traced(app, traced, children))
    except (LedgerUnavailable, RedisError) as error:
        quiet.warn(logger, "ledger", "Task %s goes back to its queue: %s", task.name, error)
        return Accepted("returned")
    retval, info, seconds, shown = traced
    return Accepted("traced", traced=(1, retval, seconds) if info else (0, shown, seconds))


def _append(app: Celery, waiting: Sequence[_Waiting]) -> list[Accepted]:
    if not waiting:
        return []
    try:
        hand_over(app, [item.request for item in waiting])
    except BufferUnreachable as error:
        quiet.warn(logger, "redis", "%s", error)
        return [Accepted("returned") for _ in waiting]
    except Exception as error:
        if len(waiting) > 1:
            return [end for item in waiting for end in _append(app, [item])]
        logger.exception("Request %s could not be buffered", waiting[0].request.custom_id)
        task, request, _ = waiting[0]
        return [_traced(app, task, request, Turn(request["id"], error=error))]
    return [Accepted("buffered", lane=item.request.lane.key) for item in waiting]
