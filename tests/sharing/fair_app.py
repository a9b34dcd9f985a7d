"""An app that several tenants call."""

from __future__ import annotations

import os

from celery import Celery

from lowtide import batch_task

URL = os.environ.get("LOWTIDE_REDIS_URL", "redis://localhost:6379/0")
app = Celery("fair", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True


@batch_task(name="fair.summarize", model="gpt-5-mini")
def summarize(text: str) -> str:
    return f"Summarise:\n\n{text}"
