"""The app under chaos: batch tasks of each kind, and ordinary tasks for what follows them."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from lowtide import batch_task, chat, sweep

URL = os.environ["LOWTIDE_REDIS_URL"]
VISIBILITY = float(os.environ.get("TEST_VISIBILITY", "8"))
MODEL = "gpt-5-mini"

app = Celery("chaos", broker=URL, backend=URL)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport="lowtide.broker:Transport",
    # The messages of a killed worker come back within seconds.
    broker_transport_options={
        "visibility_timeout": VISIBILITY,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        # Who is killed while giving back messages keeps the others from it for so long.
        "unacked_mutex_expire": 5,
        "socket_timeout": 10,
    },
    redis_socket_timeout=10,
    task_publish_retry_policy={"max_retries": 30, "interval_start": 0.1, "interval_max": 1},
    worker_prefetch_multiplier=2,
    worker_send_task_events=True,
)
# A lost timer comes back within seconds too.
sweep.SWEEP_EVERY = 5.0


@batch_task(name="chaos.plain", model=MODEL)
def plain(text: str) -> str:
    return f"Summarise:\n\n{text}"


@batch_task(name="chaos.shared", model=MODEL, coalesce=True)
def shared(text: str) -> str:
    return f"Summarise:\n\n{text}"


@batch_task(name="chaos.told", model=MODEL, deliver_to="feed")
def told(text: str) -> str:
    return f"Summarise:\n\n{text}"


@batch_task(name="chaos.bad", model=MODEL)
def bad(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 99}


@batch_task(name="chaos.steps", model=MODEL)
def steps(text: str) -> Any:
    first = yield chat(f"Summarise:\n\n{text}")
    second = yield chat(f"Summarise:\n\n{first.text} Twice.")
    return [first.text, second.text]


# An ordinary task survives its worker only when its message is acknowledged late.
@app.task(name="chaos.same", acks_late=True, reject_on_worker_lost=True)
def same(value: Any) -> Any:
    return value


@app.task(name="chaos.join", acks_late=True, reject_on_worker_lost=True)
def join(parts: list[str]) -> str:
    return " | ".join(parts)
