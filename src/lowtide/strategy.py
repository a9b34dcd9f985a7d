"""Accepting messages in micro-batches: the strategy that Celery's consumer uses for batch tasks.

Celery hands each message to the pool by itself. Batch tasks only put a request into a buffer, so
messages that arrive together go to one pool process together, and are acknowledged together when
their requests are stored. What needs more care (an ETA, a rate limit, a time limit, an old
message format, a message that was delivered before) takes Celery's ordinary way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import Celery, signals
from celery.exceptions import TaskRevokedError
from celery.utils.imports import symbol_by_name
from celery.utils.log import get_logger
from celery.worker import strategy as celery_strategy
from celery.worker.request import create_request_cls
from celery.worker.state import revoked as revoked_ids
from celery.worker.state import task_reserved

from lowtide import acks, hidden
from lowtide.accept import Accepted, Incoming, accept
from lowtide.celery_seam import own_names, payload, this_app
from lowtide.envelope import Body

logger = get_logger(__name__)
MAX_BYTES = 1_000_000
_MAX_PROCESSES = 16


def batching(task: Any, app: Celery, consumer: Any, **kwargs: Any) -> Callable[..., Any]:
    """The message handler of `task`; named in `Task.Strategy`."""
    alone = celery_strategy.default(task, app, consumer, **kwargs)
    receive = _receiver(task, app, consumer)
    batcher = Batcher.of(consumer)

    def handle(
        message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **options: Any
    ) -> Any:
        if body is not None or _is_special(task, message):
            return alone(message, body, ack, reject, callbacks, **options)
        request = receive(message, ack, reject)
        if request is not None:
            for callback in callbacks or ():
                callback(request)
            batcher.add(request, task)
        return None

    return handle


def accept_job(incoming: Sequence[Incoming], hostname: str) -> list[Accepted]:
    """What a pool process runs for one micro-batch."""
    return accept(this_app(), incoming, hostname)


class MicroBatch:
    """Messages on their way through the pool together; the worker treats it as one request.

    Args:
        requests: The messages.
        batcher: Who collected them.
    """

    def __init__(self, requests: Sequence[Any], batcher: Batcher) -> None:
        self.requests = requests
        self._batcher = batcher
        self._consumer = batcher.consumer

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Sends those that are still wanted to the pool.

        Raises:
            TaskRevokedError: All were revoked, or have expired; the worker frees their place.
        """
        wanted = [request for request in self.requests if not _is_revoked(request)]
        self._batcher.release(len(self.requests) - len(wanted))
        self.requests = wanted
        if not wanted:
            raise TaskRevokedError("all messages of a micro-batch")
        incoming = [_incoming(request) for request in wanted]
        return pool.apply_async(
            accept_job,
            (incoming, self._consumer.hostname),
            accept_callback=self._on_started,
            callback=self._on_accepted,
            error_callback=self._on_lost,
        )

    def _on_started(self, pid: int, time_accepted: float) -> None:
        for request in self.requests:
            request.on_accepted(pid, time_accepted)

    def _on_accepted(self, ends: Sequence[Accepted], **_: Any) -> None:
        self._batcher.release(len(self.requests))
        pairs = list(zip(self.requests, ends, strict=True))
        buffered = [request for request, accepted in pairs if accepted.end == "buffered"]
        acks.acknowledge(self._consumer, buffered)
        for request, accepted in pairs:
            try:
                self._end(request, accepted)
            except Exception:
                logger.exception("Message of task %s could not be ended", request)

    def _end(self, request: Any, accepted: Accepted) -> None:
        if accepted.end == "buffered":
            request.buffered(accepted.lane)
        elif accepted.end == "traced":
            request.on_success(accepted.traced)
        elif accepted.end == "returned":
            request.returned()
        else:
            self._consumer.on_task_request(request)

    def _on_lost(self, failure: ExceptionInfo, **_: Any) -> None:
        """The pool process died: each message goes on by itself, so that only one can be guilty."""
        self._batcher.release(len(self.requests))
        logger.warning(
            "A pool process was lost with %d messages (%s); each is handled by itself now",
            len(self.requests),
            type(failure.exception).__name__,
        )
        for request in self.requests:
            self._consumer.on_task_request(request)


class Batcher:
    """Collects the messages of all batch tasks of one worker.

    Prefetch: while messages are held here, the worker may take some more, up to what its
    processes can work on at once. A worker that takes none holds none.

    Args:
        consumer: Celery's consumer.
    """

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer
        self.generation = consumer.restart_count
        self._lock = threading.RLock()
        self._requests: list[Any] = []
        self._bytes = 0
        self._timer: Any = None
        self._held = 0
        self._granted = 0

    @classmethod
    def of(cls, consumer: Any) -> Batcher:
        """The consumer's batcher, a new one after each reconnect: what the old one holds was
        given back with its connection.
        """
        known: Batcher | None = getattr(consumer, "lowtide_batcher", None)
        if known is None or known.generation != consumer.restart_count:
            if known is not None:
                known.take()
            known = consumer.lowtide_batcher = cls(consumer)
        return known

    def add(self, request: Any, task: Any) -> None:
        """Holds a message until there are enough, or it has waited long enough."""
        with self._lock:
            self._requests.append(request)
            self._bytes += len(request.body)
            self._held += 1
            self._grant(task.micro_batch)
            full = len(self._requests) >= task.micro_batch or self._bytes >= MAX_BYTES
            if not full and self._timer is None:
                self._timer = self.consumer.timer.call_after(task.linger, self.flush)
        if full:
            self.flush()

    def flush(self) -> None:
        """Sends what is held to the pool."""
        requests = self.take()
        if requests:
            self.consumer.on_task_request(MicroBatch(requests, self))

    def release(self, count: int) -> None:
        """Notes that `count` messages are held no more."""
        with self._lock:
            self._held -= count
            if self._held <= 0 and self._granted:
                self.consumer.qos.decrement_eventually(self._granted)
                self._granted = 0

    def take(self) -> list[Any]:
        """All that is held; its timer goes."""
        with self._lock:
            requests, self._requests = self._requests, []
            self._bytes = 0
            timer, self._timer = self._timer, None
        if timer is not None:
            getattr(timer, "entry", timer).cancel()
        return requests

    def _grant(self, step: int) -> None:
        most = step * min(self.consumer.pool.num_processes + 1, _MAX_PROCESSES)
        if self._held > self._granted and self._granted < most:
            qos = self.consumer.qos
            before = qos.value
            self._granted += qos.increment_eventually(step) - before


def _receiver(task: Any, app: Celery, consumer: Any) -> Callable[[Any, Any, Any], Any]:
    """Makes a request of a message, unless it is not wanted; says that it was received."""
    request_type = create_request_cls(
        symbol_by_name(task.Request),
        task,
        consumer.pool,
        consumer.hostname,
        consumer.event_dispatcher,
        app=app,
    )

    def receive(message: Any, ack: Any, reject: Any) -> Any:
        request = request_type(
            message,
            on_ack=ack,
            on_reject=reject,
            app=app,
            hostname=consumer.hostname,
            eventer=consumer.event_dispatcher,
            task=task,
            connection_errors=consumer.connection_errors,
            body=message.body,
            headers=message.headers,
            decoded=False,
            utc=app.uses_utc_timezone(),
        )
        logger.debug("Task %s[%s] received", request.name, request.id)
        if (request.expires or request.id in revoked_ids) and request.revoked():
            return None
        signals.task_received.send(sender=consumer, request=request)
        _send_received(app, request)
        task_reserved(request)
        return request

    return receive


def _send_received(app: Celery, request: Any) -> None:
    eventer = request.eventer
    if not (eventer and eventer.enabled and request.task.send_events):
        return
    shows = hidden.shows_prompts(app)
    request.send_event(
        "task-received",
        name=request.name,
        args=request.argsrepr if shows else hidden.veil(request.args),
        kwargs=request.kwargsrepr if shows else hidden.veil(request.kwargs),
        root_id=request.root_id,
        parent_id=request.parent_id,
        retries=request.request_dict.get("retries", 0),
        eta=None,
        expires=request.expires and request.expires.isoformat(),
    )


def _is_special(task: Any, message: Any) -> bool:
    """Whether a message needs Celery's ordinary way."""
    headers = message.headers
    limits = headers.get("timelimit")
    return bool(
        headers.get("eta")
        or task.rate_limit
        or task.time_limit
        or task.soft_time_limit
        or (limits and any(limits))
        or (message.delivery_info or {}).get("redelivered")
        or headers.get("redelivered")
        or _has_old_body(message)
    )


def _has_old_body(message: Any) -> bool:
    """Whether the body is of Celery's first format, though the headers are of its second."""
    return "args" in payload(message)


def _is_revoked(request: Any) -> bool:
    watched = request.expires or request.stamped_headers or request.id in revoked_ids
    return bool(watched and request.revoked())


def _incoming(request: Any) -> Incoming:
    told = request.request_dict
    # Where Celery says nothing nothing need be passed on; a header of the user's may say None.
    own = own_names(frozenset(told))
    headers = {
        key: value
        for key, value in told.items()
        if (value is not None or key in own) and key not in ("args", "kwargs")
    }
    data = request.body if isinstance(request.body, bytes) else request.body.encode()
    body = Body(data, request.content_type, request.content_encoding)
    return Incoming(request.task.name, headers, body)
