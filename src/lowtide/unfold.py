"""A bulk message on a worker: each call that it carries is accepted, failed, or sent by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from celery import Task
from celery.exceptions import NotRegistered
from celery.utils.log import get_logger

from lowtide import bulk_calls, carried, early, endings, finality, runtime
from lowtide.accept import Incoming, accept
from lowtide.celery_seam import context_of
from lowtide.envelope import Body
from lowtide.events import TaskEvents

logger = get_logger(__name__)
PAUSE = 5.0
"""Seconds that a process waits before a message goes back whose calls may be accepted soon."""


class Calls(NamedTuple):
    """What a bulk message carries.

    Attributes:
        name: Name of the batch task.
        common: What the calls share: group, headers, and the canvas links.
        first: Index in the group of the first call.
        ids: Task ids of the calls.
        arguments: (args, kwargs) of each.
    """

    name: str
    common: Mapping[str, Any]
    first: int
    ids: Sequence[str]
    arguments: Sequence[tuple[list[Any], dict[str, Any]]]


def unfold(own: Task, calls: Calls) -> int:
    """Does with the calls what a worker would have done with a message of each.

    Args:
        own: The unfolding task, which runs.
        calls: The calls.

    Returns:
        How many of them the message is to bring again.

    Raises:
        Exception: Result backend or broker cannot be reached, or what nobody foresaw; any of the
            calls may be open.
    """
    task, request = own.app.tasks.get(calls.name), own.request
    incoming = _incoming(request, task, calls)
    again = 0
    # A message that was sent anew for a worker that could not take it tells so in its headers.
    if request.retries or request.delivery_info.get("redelivered") or request.get("redelivered"):
        incoming, again = _unfinished(task or own, incoming)
    if task is None:
        _fail(own, calls.name, incoming)
        left = 0
    elif bulk_calls.has_expired(calls.common.get("call", {})):
        _expire(task, request.hostname or "", incoming)
        left = 0
    elif request.retries:
        _send_alone(task, incoming)
        left = 0
    else:
        left = _accept(task, request.hostname or "", calls, incoming)
    if again:
        runtime.of(own.app).clock.sleep(PAUSE)
    return left + again


def _incoming(own: Any, task: Any, calls: Calls) -> list[Incoming]:
    found = []
    for index, (args, kwargs) in enumerate(calls.arguments):
        headers = _headers(own, task, calls, index)
        serializer = calls.common.get("serializer", "json")
        body = Body.of(args, kwargs, calls.common["embed"], serializer)
        found.append(Incoming(calls.name, headers, body))
    return found


def _headers(own: Any, task: Any, calls: Calls, index: int) -> dict[str, Any]:
    """The headers that the call's own message would have had."""
    common, task_id = calls.common, calls.ids[index]
    within, ignored = own.parent_id is not None, common["ignore_result"]
    return {
        **common["headers"],
        **common.get("call", {}),
        "id": task_id,
        "task": calls.name,
        "root_id": own.root_id if within else task_id,
        "parent_id": own.parent_id,
        "group": common["group"],
        "group_index": calls.first + index,
        "origin": own.origin,
        "ignore_result": getattr(task, "ignore_result", False) if ignored is None else ignored,
        "delivery_info": {**(own.delivery_info or {}), "redelivered": False},
        "correlation_id": task_id,
        "reply_to": own.reply_to,
    }


def _unfinished(task: Any, incoming: Sequence[Incoming]) -> tuple[list[Incoming], int]:
    """The calls whose tasks had not ended when the message came before.

    Chords and destinations are told of the others' ends once more: a worker may have died before.

    Returns:
        The calls, and of how many others the end cannot be told now.
    """
    stored = finality.stored((task, message.headers["id"]) for message in incoming)
    unfinished, again = [], 0
    for message in incoming:
        meta = stored.get(message.headers["id"])
        if meta is None:
            unfinished.append(message)
        elif not _told(task, message, meta):
            again += 1
    return unfinished, again


def _told(task: Any, message: Incoming, meta: dict[str, Any]) -> bool:
    """Tells once more how a task ended; whether its chord could be told now."""
    request = _request(task, message)
    context = context_of(request)
    if finality.repeat(task, context, meta) == "AGAIN":
        return False
    # Of a task that asked something, the ledger noted with its outcome who is to be told.
    if carried.recipients(task, context.headers) and not runtime.of(task.app).ledger.task(
        context.id
    ):
        early.tell(task, request, endings.of_meta(task.app, meta))
    return True


def _accept(task: Any, hostname: str, calls: Calls, incoming: Sequence[Incoming]) -> int:
    """Accepts calls together; returns how many could not be accepted now."""
    events = TaskEvents(task.app, hostname)
    arguments = dict(zip(calls.ids, calls.arguments, strict=True))
    for message in incoming:
        events.received(task, message.headers, *arguments[message.headers["id"]])
    ends = accept(task.app, incoming, hostname)
    left, alone = 0, []
    for message, accepted in zip(incoming, ends, strict=True):
        if accepted.end == "returned":
            left += 1
        elif accepted.end == "alone":
            alone.append(message)
        else:
            events.accepted(task, message.headers["id"], accepted)
    events.send()
    _send_alone(task, alone)
    return left


def _send_alone(task: Any, incoming: Sequence[Incoming]) -> None:
    """Sends each call in a message of its own, to the queue that it came from."""
    if not incoming:
        return
    with task.app.producer_or_acquire() as producer:
        for message in incoming:
            context = context_of(_request(task, message))
            task.signature_from_request(context).apply_async(producer=producer)
    logger.warning(
        "%d calls of task %s go on in messages of their own, as they could not be accepted "
        "together",
        len(incoming),
        task.name,
    )


def _expire(task: Any, hostname: str, incoming: Sequence[Incoming]) -> None:
    """Ends calls that were taken too late, as a worker ends those with messages of their own."""
    events = TaskEvents(task.app, hostname)
    for message in incoming:
        finality.revoke(task, context_of(_request(task, message)), "expired")
        events.revoked(task, message.headers["id"], expired=True)
    events.send()


def _fail(own: Task, name: str, incoming: Sequence[Incoming]) -> None:
    """Ends calls of a task that this worker does not know, as Celery ends a single one.

    Other than there, chords and error links are at hand; so they are told.
    """
    error = NotRegistered(name)
    events = TaskEvents(own.app, own.request.hostname or "")
    for message in incoming:
        task_id = message.headers["id"]
        own.app.backend.mark_as_failure(task_id, error, request=context_of(_request(own, message)))
        events.add(own, "task-failed", task_id, exception=repr(error))
    events.send()
    logger.error(
        "%d calls of task %s failed, as this worker does not know the task. Import its module "
        "here (`include=`), and send the calls again.",
        len(incoming),
        name,
    )


def _request(task: Any, message: Incoming) -> dict[str, Any]:
    """The call as Celery's tracer takes it."""
    args, kwargs, embed = message.body.load(task.app)
    return {**message.headers, "args": args, "kwargs": kwargs, **embed}
