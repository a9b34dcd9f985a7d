"""Two tasks of one lane, one of them under a cap."""

from __future__ import annotations

import os

from celery import Celery

from lowtide import BatchTask

URL = os.environ.get("LOWTIDE_REDIS_URL", "redis://localhost:6379/0")
# Not the current one: in a test run the app of the other tests is.
app = Celery("caps", broker=URL, backend=URL, set_as_current=False)
app.conf.broker_connection_retry_on_startup = True


@app.task(base=BatchTask, name="caps.capped", model="gpt-5-mini", shared=False)
def capped(text: str) -> str:
    return text


@app.task(base=BatchTask, name="caps.free", model="gpt-5-mini", shared=False)
def free(text: str) -> str:
    return text
