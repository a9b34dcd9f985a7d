"""The result of a batch task's call: Celery's, which also tells where the request is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import states
from celery.result import AsyncResult
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from lowtide.held import Where

logger = get_logger(__name__)
# States of a batch in which the provider has it, or had it.
_AT_PROVIDER = frozenset({"SUBMITTED", "ENDED", "FETCHED", "DELIVERED"})
# What Celery says of a task of which it knows no more.
_UNTOLD = (states.PENDING, states.STARTED)


class BatchResult(AsyncResult):
    """An `AsyncResult` whose state is "BUFFERED" or "SUBMITTED" while the answer is awaited.

    The result backend holds nothing until the task ends: what comes before is asked of lowtide.

    Args:
        args: As Celery's.
        result_backend: Name of a result backend in the settings, to read from that one.
        options: As Celery's.
    """

    _own: Any = None
    _name: str | None = None

    def __init__(self, *args: Any, result_backend: str | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        if result_backend is not None:
            self.read_from(result_backend)

    def read_from(self, name: str) -> None:
        """Reads from the result backend of that name in the settings from now on."""
        self._name, self._own = name, None

    @property
    def ignored(self) -> bool:
        """Whether nothing is stored: a named backend gets results that the app's own does not."""
        return self._name is None and bool(self._ignored)

    @ignored.setter
    def ignored(self, value: bool) -> None:
        self._ignored = value

    @property
    def backend(self) -> Any:
        """The result backend that is read."""
        if self._own is None and self._name is not None:
            from lowtide.named import named_backend

            self._own = named_backend(self._name, self.app)
        return self._own

    @backend.setter
    def backend(self, backend: Any) -> None:
        self._own = backend

    def __reduce__(self) -> Any:
        if self._name is None:
            return super().__reduce__()
        return _named, (type(self), self.id, self._name, self.parent)

    def __del__(self) -> None:
        # One that was never read waits for nothing: no backend is made for it now.
        if self._own is not None:
            super().__del__()

    @property
    def state(self) -> str:
        """The task's state: Celery's or the task's own, or "BUFFERED" or "SUBMITTED" meanwhile."""
        meta = self._get_task_meta()
        if meta["status"] not in _UNTOLD:
            return str(meta["status"])
        where = self.where()
        return str(meta["status"]) if where is None else str(where["state"])

    status = state

    @property
    def info(self) -> Any:
        """The result when the task has ended; what it stored of itself by `update_state`; without
        that, where its request is, as `where` tells.
        """
        meta = self._get_task_meta()
        if meta["status"] not in (*_UNTOLD, states.RETRY):
            return meta["result"]
        return self.where() or meta["result"]

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self._get_task_meta()["status"] in self.backend.READY_STATES

    def where(self) -> dict[str, Any] | None:
        """Where the task's request is.

        Returns:
            A dict of JSON values; None when lowtide holds no request of the task, or its Redis
            cannot be asked. Its keys:
            "state": "BUFFERED" before the provider has it, "SUBMITTED" from then on;
            "batch_state": how far the batch is, None when that is not known;
            "lane": "account:endpoint:model";
            "batch": lowtide's id of the batch;
            "provider_batch": the provider's id, None before it is submitted;
            "reason": why the batch is held, None while it is not;
            "position": place in the batch, counted from 0;
            "requests": how many the batch has, None while its buffer is open;
            "expected_end": epoch seconds, None where nothing was learned yet;
            "step": number of the request within the task, from 0: a generator makes several.
        """
        from redis.exceptions import RedisError

        from lowtide import runtime

        try:
            found = runtime.of(self.app).where(self.id)
        except (RedisError, OSError) as error:
            logger.warning("Where task %s is cannot be asked: %s", self.id, error)
            return None
        return None if found is None else _told(found)


def _named(kind: type[BatchResult], task_id: str, name: str, parent: Any) -> BatchResult:
    """A result that was pickled."""
    return kind(task_id, parent=parent, result_backend=name)


def _told(where: Where) -> dict[str, Any]:
    return {
        "state": "SUBMITTED" if where.state in _AT_PROVIDER else "BUFFERED",
        "batch_state": where.state,
        "lane": where.lane,
        "batch": where.batch_id,
        "provider_batch": where.provider_batch_id,
        "reason": where.summary.get("reason") if where.state == "HELD" else None,
        "position": where.position,
        "requests": where.requests,
        "expected_end": where.expected_end,
        "step": where.step,
    }
