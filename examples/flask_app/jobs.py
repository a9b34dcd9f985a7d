"""The Celery app and its batch tasks: `celery -A jobs worker`."""

import os

from celery import Celery

from lowtide import batch_task

URL = os.environ.get("LOWTIDE_REDIS_URL", "redis://localhost:6379/0")
app = Celery("flask_app", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True
# Web servers answer in threads, and Celery's current app is one thread's alone.
app.set_default()


@batch_task(name="slogans.shorten", model="gpt-5-mini")
def shorten(text: str, words: int = 8) -> str:
    """A text in few words."""
    return f"Summarise in at most {words} words:\n\n{text}"
