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
        return str(meta["status"]) if where is None else str(where["state"])

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
        """Where the task's request is.

        Returns:
            A dict of JSON values; None when lowtide holds no request of the task, or its Redis
            cannot be asked. Its keys:
            "state": "BUFFERED" before the provider has it, "SUBMITTED" from then on;
            "batch_state": how far the batch is, None when that is not known;
            "lane": "account:endpoint:model";
            "batch": lowtide's id of the batch;
            "provider_batch": the provider's id, None before it is submitted;
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


def _told(where: Where) -> dict[str, Any]:
    return {
        "state": "SUBMITTED" if where.state in _AT_PROVIDER else "BUFFERED",
        "batch_state": where.state,
        "lane": where.lane,
        "batch": where.batch_id,
        "provider_batch": where.provider_batch_id,
        "position": where.position,
        "requests": where.requests,
        "expected_end": where.expected_end,
        "step": where.step,
    }
