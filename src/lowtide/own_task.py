"""What lowtide's own Celery tasks have in common: they work for many tasks at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery, Task


class OwnTask(Task):
    """A task of lowtide's: redelivered when its worker dies, without a result.

    What an app says of all its tasks is meant for one at a time. One of these may run the code of
    hundreds, so no time limit ends it and no rate limit holds it up.
    """

    abstract = True
    acks_late = True
    reject_on_worker_lost = True
    ignore_result = True
    # Celery takes the app's where a task says None.
    rate_limit = 0
    time_limit = 0
    soft_time_limit = 0
    Strategy = "lowtide.own_task:unlimited"


def unlimited(task: OwnTask, app: Celery, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's message handler for `task`, with a pool that sets no time limit."""
    from celery.worker import strategy

    return strategy.default(task, app, _Consumer(consumer), **options)


class _Consumer:
    """The worker's consumer, as a handler of messages sees it."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self.pool = _Pool(consumer.pool)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


class _Pool:
    """The worker's pool. Its processes take a limit of 0 for none given, and put in the app's."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def apply_async(self, *args: Any, **options: Any) -> Any:
        job = self._pool.apply_async(*args, **options)
        # They are read when a process takes the job, which is later.
        if hasattr(job, "_soft_timeout"):
            job._soft_timeout = job._timeout = 0  # noqa: SLF001 - billiard has no other way
        return job
