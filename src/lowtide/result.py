"""The result of a batch task's call: Celery's, which also tells where the request is."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any

from celery import states
from celery.result import AsyncResult
from celery.utils.log import get_logger

logger = get_logger(__name__)


class BatchResult(AsyncResult):
    """An `AsyncResult` whose state is "BUFFERED" or "SUBMITTED" while the answer is awaited.

    The result backend holds nothing until the task ends: what comes before is asked of lowtide.
    """

    @property
    def state(self) -> str:
        """The task's state: Celery's, or "BUFFERED" or "SUBMITTED" meanwhile."""
        meta = self._get_task_meta()
        if meta["status"] in self.backend.READY_STATES or meta["status"] == states.RETRY:
            return str(meta["status"])
        where = self.where()
        return str(where.get("state") or meta["status"]) if where else str(meta["status"])

    status = state

    @property
    def info(self) -> Any:
        """The result when the task has ended; before, where its request is, as `where` tells."""
        meta = self._get_task_meta()
        if meta["status"] in self.backend.READY_STATES:
            return meta["result"]
        return self.where() or meta["result"]

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self._get_task_meta()["status"] in self.backend.READY_STATES

    def where(self) -> dict[str, Any] | None:
        """Where the request is: lane, batch, position, expected end and so on.

        Returns:
            None when lowtide holds no request of the task, or its Redis cannot be asked.
        """
        from redis.exceptions import RedisError

        from lowtide import runtime

        try:
            found = runtime.of(self.app).where(self.id)
        except (RedisError, OSError) as error:
            logger.warning("Where task %s is cannot be asked: %s", self.id, error)
            return None
        if is_dataclass(found) and not isinstance(found, type):
            return asdict(found)
        return found
