"""The apps under measurement: a plain Celery app, and one with batch tasks.

Which one a worker runs is in its command; both are on the same Valkey.
"""

from __future__ import annotations

import os

from celery import Celery

REDIS = os.environ.get("BENCH_REDIS", "redis://localhost:6379")

plain = Celery("plain", broker=f"{REDIS}/0", backend=f"{REDIS}/1", set_as_current=False)
plain.conf.update(task_default_queue="plain", broker_connection_retry_on_startup=True)


@plain.task(name="bench.nothing")
def nothing(text: str = "") -> None:
    """A plain task without work."""


@plain.task(name="bench.same")
def same(text: str) -> str:
    """A plain task that has a result to pass on."""
    return text


@plain.task(name="bench.count")
def count(parts: list[str]) -> int:
    """The body of a chord."""
    return len(parts)
