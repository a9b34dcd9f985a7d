"""Task events from the replica that delivers, for Flower and other monitors."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from celery import Celery, states
from celery.exceptions import Retry
from celery.utils.log import get_logger
from redis.exceptions import RedisError

from lowtide import hidden, pulse, runtime
from lowtide.accept import Accepted
from lowtide.celery_seam import shown as show
from lowtide.envelope import Envelope
from lowtide.errors import LowtideError

if TYPE_CHECKING:
    from lowtide.runtime import Runtime

logger = get_logger(__name__)
_IN_ONE_MESSAGE = 100


def tell_submitted(rt: Runtime, batch_id: str, hostname: str) -> None:
    """Tells monitors of every task of a batch that the provider has it now.

    Events are for the eye: what fails here ends nothing.
    """
    try:
        batch = rt.ledger.batch(batch_id)
        if batch is None or not _wanted(rt.app):
            return
        for tasks in rt.ledger.waiting(batch_id):
            events = TaskEvents(rt.app, hostname)
            for name, task_id in tasks:
                if (task := rt.app.tasks.get(name)) is not None:
                    events.submitted(task, task_id, batch.lane, batch_id, batch.expected_end)
            events.send()
    except LowtideError as error:
        logger.warning("Batch %s: monitors were not told that it is submitted: %s", batch_id, error)


class TaskEvents:
    """Events of one slice, sent together in groups.

    Celery's tracer sends none: for an ordinary task the worker's main process does.

    Args:
        app: The Celery app.
        hostname: The worker's node name.
    """

    def __init__(self, app: Celery, hostname: str) -> None:
        self._app = app
        self._hostname = hostname
        self._shows = hidden.shows_prompts(app)
        self._wanted = _wanted(app)
        self._events: list[tuple[str, dict[str, Any]]] = []

    def add(self, task: Any, kind: str, task_id: str, **fields: Any) -> None:
        """Adds one event, unless the task or all workers are set to send none."""
        if self._wanted and task.send_events:
            self._events.append((kind, {"uuid": task_id, **fields}))

    def received(self, task: Any, request: dict[str, Any], args: Any, kwargs: Any) -> None:
        """Adds what a worker tells of a message when it comes, for a call that had none."""
        if not self._wanted:
            return
        fields = {
            "name": task.name,
            "args": show(args) if self._shows else hidden.veil(args),
            "kwargs": show(kwargs) if self._shows else hidden.veil(kwargs),
            "root_id": request["root_id"],
            "parent_id": request["parent_id"],
            "retries": 0,
            "eta": None,
            "expires": None,
        }
        self.add(task, "task-received", request["id"], **fields)
        self.add(task, "task-started", request["id"])

    def accepted(self, task: Any, task_id: str, accepted: Accepted) -> None:
        """Adds what became of a call in its first phase."""
        if accepted.end == "buffered":
            self.buffered(task, task_id, accepted.lane)
        elif accepted.traced[0]:
            failure = accepted.traced[1]
            fields = {"exception": show(failure.exception), "traceback": failure.traceback}
            retried = isinstance(failure.exception, Retry)
            self.add(task, "task-retried" if retried else "task-failed", task_id, **fields)
        else:
            _, shown, seconds = accepted.traced
            result = shown if self._shows else ""
            self.add(task, "task-succeeded", task_id, result=result, runtime=seconds)

    def buffered(self, task: Any, task_id: str, lane: str) -> None:
        """Adds that the task's request, or a generator's next one, waits in the lane's buffer."""
        self.add(task, "task-buffered", task_id, routing_key=f"lane {lane}")

    def submitted(
        self, task: Any, task_id: str, lane: str, batch_id: str, expected_end: float | None = None
    ) -> None:
        """Adds that the provider has the task's request, in which batch, and until when about.

        Monitors show the routing key; the other fields are for those that read events.
        """
        where = f"lane {lane} batch {batch_id}"
        if expected_end is not None:
            where += f" end about {datetime.fromtimestamp(expected_end, UTC):%d %b %H:%M} UTC"
        fields = {"lane": lane, "batch": batch_id, "expected_end": expected_end}
        self.add(task, "task-submitted", task_id, routing_key=where, **fields)

    def revoked(self, task: Any, task_id: str, *, expired: bool = False) -> None:
        """Adds that the task was revoked, or taken too late.

        For monitors a state of one's own, such as "SUBMITTED", comes after "REVOKED", so the event
        has to name the state itself.
        """
        fields = {"terminated": False, "signum": None, "expired": expired}
        self.add(task, "task-revoked", task_id, state=states.REVOKED, **fields)

    def ended(
        self,
        task: Any,
        envelope: Envelope,
        task_id: str,
        traced: tuple[Any, Any, Any, Any],
    ) -> None:
        """Adds the event that belongs to what Celery's tracer gave.

        The runtime is counted from the moment the call was accepted.
        """
        if not self._wanted:
            return
        retval, info, _, shown = traced
        state = states.SUCCESS if info is None else info.state
        if state == states.SUCCESS:
            result = shown if self._shows else hidden.veil_item(retval)
            took = max(0.0, time.time() - envelope.accepted_at)
            self.add(task, "task-succeeded", task_id, result=result, runtime=took)
        elif state in (states.FAILURE, states.RETRY):
            error = getattr(info.retval, "exc", None) or info.retval
            kind = "task-failed" if state == states.FAILURE else "task-retried"
            traceback = str(getattr(retval, "traceback", "") or "")
            self.add(task, kind, task_id, exception=show(error), traceback=traceback)

    def send(self) -> None:
        """Sends what was added. Events are for the eye: a broker that is down ends nothing."""
        if not self._events:
            return
        try:
            with self._app.amqp.producer_pool.acquire(block=True) as producer:
                self._send(producer)
        except Exception as error:
            logger.warning("%d task events were not sent: %s", len(self._events), error)

    def _send(self, producer: Any) -> None:
        dispatcher = self._app.events.Dispatcher(
            producer.connection,
            hostname=self._hostname,
            channel=producer.channel,
            buffer_while_offline=False,
            buffer_group={"task"},
            buffer_limit=_IN_ONE_MESSAGE,
        )
        for kind, fields in self._events:
            dispatcher.send(kind, **fields)
        dispatcher.flush()
        dispatcher.close()


def _wanted(app: Celery) -> bool:
    try:
        return pulse.watched(runtime.of(app))
    except (RedisError, OSError):
        return False
