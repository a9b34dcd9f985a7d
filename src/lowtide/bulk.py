"""Many calls in few messages: `delay_many`, and the task that unfolds them on a worker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from celery import Celery, Task
from celery.canvas import Signature, maybe_signature
from celery.result import AsyncResult, GroupResult
from celery.utils.functional import maybe_list
from celery.utils.log import get_logger
from kombu.utils.uuid import uuid

from lowtide import bulk_calls, carried, lifetimes, listening, tracing
from lowtide.carried import DEADLINE_HEADER, due_at
from lowtide.many import ManyResults
from lowtide.own_task import OwnTask
from lowtide.result import BatchResult

if TYPE_CHECKING:
    from lowtide.task import BatchTask

logger = get_logger(__name__)
EXPAND = "lowtide.expand"
CALLS_IN_MESSAGE = 500
_BYTES_IN_MESSAGE = 1_000_000

Arguments: TypeAlias = tuple[list[Any], dict[str, Any]]


def delay_many(
    app: Celery,
    name: str,
    calls: Iterable[Any],
    *,
    task: BatchTask | None = None,
    link: Any = None,
    link_error: Any = None,
    chord: Any = None,
    deadline: str | float | datetime | None = None,
    headers: Mapping[str, Any] | None = None,
    task_ids: Sequence[str] | None = None,
    add_to_parent: bool = True,
    **options: Any,
) -> GroupResult | AsyncResult:
    """Sends a call for each of `calls`, some hundred in one message.

    Args:
        app: The Celery app.
        name: Name of the batch task.
        calls: A tuple holds positional arguments, a dict keyword arguments, a signature both;
            anything else is the one argument.
        task: The batch task, where its code is at hand.
        link: Signature, or list of them, that is called with each result.
        link_error: Signature, or list of them, that is called for each failure.
        chord: Signature that is called with the list of all results.
        deadline: When the answers are needed, as for `BatchTask.apply_async`.
        headers: Headers of each call.
        task_ids: Ids of the calls, in their order; new ones when left out. Sending a call again
            under the id that it has is harmless.
        add_to_parent: Whether the results are children of the task that sends, if it is one.
        options: `tenant=`, `coalesce=`, `cache=`, `max_wait=`, `result_backend=` and
            `deliver_to=` as for `BatchTask.apply_async`; Celery's `expires=`, `shadow=` and stamps
            of each call; and its options for where and how messages go: `queue=`, `priority=`, …
            The task's own, and routes for it, hold as for single calls.

    Returns:
        The results in the order of `calls`. With a chord, the chord's result; its `parent` is
        the group of results.

    Raises:
        TypeError: The task's function does not take the arguments of a call, or a time limit is
            given, which calls that run together cannot have.
        ValueError: There are not as many task ids as calls.
    """
    options = bulk_calls.options_of(app, name, task, options)
    serializer = options.get("serializer") or app.conf.task_serializer
    arguments = [bulk_calls.checked(task, *arguments_of(call), serializer) for call in calls]
    group = uuid()
    given = task_ids or [uuid() for _ in arguments]
    if len(given) != len(arguments):
        raise ValueError(f"There are {len(given)} task ids for {len(arguments)} calls.")
    if task is not None and app.conf.task_always_eager:
        options.update(link=link, link_error=link_error, deadline=deadline, headers=headers)
        return bulk_calls.at_once(task, group, arguments, given, chord, **options)
    own = carried.take(options)
    make: Callable[[str], AsyncResult] = task.AsyncResult if task is not None else app.AsyncResult
    backend = carried.names_backend(own)
    if backend is not None:
        make = partial(BatchResult, app=app, task_name=name, result_backend=backend)
    results = ManyResults.of(group, given, make, app)
    body, result = _chord(app, chord, results)
    due = due_at(task.deadline if task is not None and deadline is None else deadline)
    common = {
        "group": group,
        "headers": {
            **tracing.carried(name, len(arguments)),
            **(headers or {}),
            **own,
            **({} if due is None else {DEADLINE_HEADER: due}),
        },
        "call": bulk_calls.take_headers(app, options),
        "serializer": serializer,
        "ignore_result": options.pop("ignore_result", None),
        "embed": {
            "callbacks": maybe_list(link),
            "errbacks": maybe_list(link_error),
            "chain": None,
            "chord": body,
        },
    }
    first = 0
    with app.producer_or_acquire(options.pop("producer", None)) as producer:
        for some in _messages(arguments):
            app.send_task(
                EXPAND,
                (name, common, first, given[first : first + len(some)], some),
                argsrepr=f"<{len(some)} calls of {name}>",
                kwargsrepr="{}",
                ignore_result=True,
                producer=producer,
                add_to_parent=False,
                route_name=name,
                task_type=task,
                **options,
            )
            first += len(some)
    if chord is not None and not arguments:
        maybe_signature(body, app=app).delay([])
    if add_to_parent and app.current_worker_task:
        app.current_worker_task.add_trail(result)
    return result


def register(app: Celery) -> None:
    """Makes the unfolding task known to `app`."""
    # Not `app.tasks`: that would finalize the app, which is what is going on.
    if EXPAND not in app._tasks:  # noqa: SLF001
        app.task(expand, name=EXPAND, bind=True, base=_Expand, lazy=False)


class _Expand(OwnTask):
    abstract = True
    # Celery sends it anew then, at once, and counts it: so it is known that a call may be guilty.
    retry_on_worker_lost = True
    max_retries = None
    default_retry_delay = None
    Request = "lowtide.worker_request:ReturnableRequest"


def expand(
    self: Task,
    name: str,
    common: dict[str, Any],
    first: int,
    ids: list[str],
    calls: list[Arguments],
) -> None:
    """Accepts the calls that one message carries, as if each had come by itself.

    Safe to run twice: a request that is in its buffer already is not added again. After a process
    was lost with the message each call goes on in one of its own, so that only one can be guilty.

    Args:
        self: The task.
        name: Name of the batch task.
        common: What the calls share: group, headers, and the canvas links.
        first: Index in the group of the first call.
        ids: Task ids of the calls.
        calls: (args, kwargs) of each.

    Raises:
        Returned: Some calls could not be accepted now; the message is to come again.
    """
    from lowtide import quiet, runtime, unfold
    from lowtide.worker_request import Returned

    try:
        left = unfold.unfold(self, unfold.Calls(name, common, first, ids, calls))
    except Exception as error:
        # Whatever it is: a message that counts as done takes its calls with it.
        quiet.warn(
            logger,
            "calls",
            "%d calls of task %s could not be accepted and go back to their queue: %r",
            len(ids),
            name,
            error,
            level=logging.ERROR,
        )
        runtime.of(self.app).clock.sleep(unfold.PAUSE)
        raise Returned(f"{len(ids)} calls wait in the queue") from error
    if left:
        raise Returned(f"{left} of {len(ids)} calls wait in the queue")


def _chord(app: Celery, chord: Any, results: ManyResults) -> tuple[Any, GroupResult | AsyncResult]:
    """Prepares a chord over `results`: its body as a dict, and what to give to the caller."""
    if chord is None:
        return None, results
    lifetimes.extend(app)
    body = maybe_signature(chord, app=app).clone()
    body["chord_size"] = len(results)
    result = body.freeze()
    results.belong_to(result)
    if len(results):
        app.backend.set_chord_size(results.id, len(results))
        # Redis' keeps a header only where there are groups in it, and to see that subscribes to
        # the result of each member.
        if not listening.subscribes(app.backend):
            app.backend.apply_chord((results.id, results.results), body)
    return body, result


def arguments_of(call: Any) -> Arguments:
    """The positional and keyword arguments of one of the calls that `delay_many` is given."""
    if isinstance(call, Signature):
        return list(call.args), dict(call.kwargs)
    if isinstance(call, tuple):
        return list(call), {}
    if isinstance(call, dict):
        return [], call
    return [call], {}


def _messages(arguments: list[Arguments]) -> Iterator[list[Arguments]]:
    """`arguments` in parts that make messages of bounded size."""
    part: list[Arguments] = []
    size = 0
    for call in arguments:
        weight = sum(_weight(value) for value in (*call[0], *call[1].values()))
        if part and (len(part) >= CALLS_IN_MESSAGE or size + weight > _BYTES_IN_MESSAGE):
            yield part
            part, size = [], 0
        part.append(call)
        size += weight
    if part:
        yield part


def _weight(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes) else 64
