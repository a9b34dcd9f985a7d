"""The app with batch tasks: `tasks.summarize` as it is shipped."""

from __future__ import annotations

import os

from celery import Celery

from benchmarks.app import REDIS

app = Celery("batch", broker=f"{REDIS}/2", backend=f"{REDIS}/3")
app.conf.update(
    broker_connection_retry_on_startup=True,
    # As `config/celeryconfig.py` has it.
    broker_transport="lowtide.broker:Transport",
    imports=("tasks.summarize",),
    lowtide={
        "redis_url": f"{REDIS}/4",
        "home": os.environ.get("BENCH_HOME", "bench"),
        "max_requests": os.environ.get("BENCH_REQUESTS", "50000"),
        "max_bytes": os.environ.get("BENCH_BYTES", "100MB"),
        "max_wait": os.environ.get("BENCH_WAIT", "5s"),
        "poll_min": os.environ.get("BENCH_POLL", "500ms"),
        "tick": os.environ.get("BENCH_TICK", "500ms"),
    },
)


@app.task(name="bench.batch_count")
def count(parts: list[str]) -> int:
    """The body of a chord."""
    return len(parts)


@app.task(name="bench.batch_same")
def same(text: str) -> str:
    """A link."""
    return text
