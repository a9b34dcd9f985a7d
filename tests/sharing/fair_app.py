"""An app that several tenants call."""

from __future__ import annotations

import os

from celery import Celery

from lowtide import BatchTask

URL = os.environ.get("LOWTIDE_REDIS_URL", "redis://localhost:6379/0")
# Beside another test's app in one process: not the current one, and its task is its own.
app = Celery("fair", broker=URL, backend=URL, set_as_current=False)
app.conf.broker_connection_retry_on_startup = True


@app.task(base=BatchTask, shared=False, name="fair.summarize", model="gpt-5-mini")
def summarize(text: str) -> str:
    return f"Summarise:\n\n{text}"
