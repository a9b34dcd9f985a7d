"""The worker's side of one message of a batch task."""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.exceptions import Ignore, WorkerLostError
from celery.utils.collections import LimitedSet
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request

from lowtide.celery_seam import JSON
from lowtide.errors import KilledItsWorker

logger = get_logger(__name__)
MAX_LOSSES = 3
# In what a RabbitMQ quorum queue counts how often a message came back.
_COUNTED = frozenset({"x-delivery-count", "x-acquired-count"})
_KEPT = ("correlation_id", "delivery_mode", "priority", "reply_to")
# Task ids by how often this worker lost a pool process to them. Bounded, as Celery's revokes are.
_lost: list[LimitedSet] = [LimitedSet(maxlen=10_000, expires=86_400) for _ in range(MAX_LOSSES)]


class Deferred(Ignore):
    """The task goes on later: its request waits in a buffer. Not an error; nothing is stored."""


class Returned(Ignore):
    """The buffer cannot be reached: the message goes back to its queue."""


class ReturnableRequest(Request):
    """A message whose task may find that its calls cannot be accepted now: it goes back."""

    def on_failure(
        self,
        exc_info: Any,
        send_failed_event: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        return_ok: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:
        """As Celery's, with one ending more."""
        if isinstance(_error(exc_info), Returned):
            self.returned()
            return None
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def returned(self) -> None:
        """Gives the message back to its queue, for this or another worker to try again.

        A queue that counts how often a message comes back drops it in the end, as one that no
        worker can handle. There it is sent anew; the copy comes once more when this fails half way,
        which is refused like every message that comes twice.
        """
        state.task_ready(self)
        if _COUNTED.isdisjoint(self.message.headers) or not self._sent_anew():
            self.reject(requeue=True)
        else:
            self.acknowledge()

    def _sent_anew(self) -> bool:
        """Sends a copy of the message, which nobody has counted; whether the broker has it."""
        message, info = self.message, self.delivery_info
        own = {name: value for name, value in message.headers.items() if name not in _COUNTED}
        kept = {name: message.properties[name] for name in _KEPT if name in message.properties}
        try:
            with self.app.producer_or_acquire() as producer:
                producer.publish(
                    message.body,
                    exchange=info["exchange"],
                    routing_key=info["routing_key"],
                    content_type=message.content_type,
                    content_encoding=message.content_encoding,
                    # As kombu tells it where the broker does not.
                    headers={**own, "redelivered": True},
                    **kept,
                )
        except Exception as error:
            logger.warning(
                "Message of task %s[%s] cannot be sent anew: %s", self.name, self.id, error
            )
            return False
        return True


class BatchRequest(ReturnableRequest):
    """A message of a batch task in the worker's main process.

    Named in `Task.Request`. It knows that a task may end without a result, and that a message
    which keeps killing its worker process must not come back for ever.
    """

    _told_start = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        content_type = self._content_type
        if content_type not in (None, JSON[0]):
            # The body is made anew in the pool, and of what arguments are JSON may know nothing.
            known = self._request_dict["properties"]
            self._request_dict["properties"] = {**known, "content_type": content_type}

    def on_failure(
        self,
        exc_info: Any,
        send_failed_event: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        return_ok: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:
        """As above, with two endings more."""
        error = _error(exc_info)
        if isinstance(error, Deferred):
            self.buffered(str(error))
            return None
        if isinstance(error, WorkerLostError | SystemExit) and self._lost_too_often():
            return super().on_failure(self._killed(), send_failed_event, return_ok=False)
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's name
        """As Celery's, but "task-started" once: monitors count it against "task-received"."""
        if type == "task-started":
            if self._told_start:
                return
            self._told_start = True
        super().send_event(type, **fields)

    def buffered(self, lane: str) -> None:
        """Ends the message: its request is in the buffer of `lane`."""
        state.task_ready(self)
        self.acknowledge()
        self.send_event("task-buffered", routing_key=f"lane {lane}")

    def _lost_too_often(self) -> bool:
        for seen in _lost:
            if self.id not in seen:
                seen.add(self.id)
                return False
        return True

    def _killed(self) -> ExceptionInfo:
        try:
            raise KilledItsWorker(
                f"Task {self.name}[{self.id}] killed its worker process {MAX_LOSSES + 1} times; "
                "look for a crash in native code, or for too much memory.",
                {"task": self.name, "task_id": self.id},
            )
        except KilledItsWorker:
            return ExceptionInfo()


def _error(exc_info: Any) -> Any:
    """The task's own error."""
    error = exc_info.exception
    return error.exc if isinstance(error, ExceptionWithTraceback) else error
