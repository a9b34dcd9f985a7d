"""An app with one batch task, as those who compare libraries would write it."""

from __future__ import annotations

import os

from celery import Celery

from lowtide import batch_task

URL = os.environ.get("LOWTIDE_REDIS_URL", "redis://localhost:6379/0")
app = Celery("peers", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True


@batch_task(name="peers.summarize", model="gpt-5-mini")
def summarize(text: str) -> str:
    return f"Summarise in at most 60 words:\n\n{text}"
