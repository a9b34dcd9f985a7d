"""Tasks whose endings are replayed; what follows them leaves a note in Redis."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from lowtide import Answer, batch_task, chat
from lowtide.connect import connect

URL = os.environ.get("LOWTIDE_REDIS_URL", "redis://localhost:6379/0")
app = Celery("again", broker=URL, backend=URL)
app.conf.update(broker_connection_retry_on_startup=True)
NOTES = "notes"


@app.task(name="again.note")
def note(value: Any) -> Any:
    connect(URL).rpush(NOTES, repr(value))
    return value


@app.task(name="again.noted_error")
def noted_error(request: Any, error: Any, traceback: Any) -> None:
    connect(URL).rpush(NOTES, type(error).__name__)


@batch_task(name="again.plain", model="gpt-5-mini")
def plain(text: str) -> str:
    return f"Summarise:\n\n{text}"


@batch_task(name="again.shared", model="gpt-5-mini", coalesce=True)
def shared(text: str) -> str:
    return f"Summarise:\n\n{text}"


@batch_task(name="again.steps", model="gpt-5-mini")
def steps(text: str):
    first = yield chat(f"Summarise:\n\n{text}")
    second = yield chat(f"Summarise:\n\n{first.text} Reviewed.")
    return [first.text, second.text]


@batch_task(name="again.bad", model="gpt-5-mini")
def bad(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 99}


@batch_task(name="again.silent", model="gpt-5-mini", ignore_result=True)
def silent(text: str) -> str:
    return f"Summarise:\n\n{text}"


@batch_task(name="again.retried", model="gpt-5-mini", bind=True, default_retry_delay=0)
def retried(self, text: str):
    answer = yield chat(f"Summarise:\n\n{text}")
    if not self.request.retries:
        raise self.retry()
    return answer.text


def _raises(answer: Answer) -> Any:
    raise ValueError("no good")


@batch_task(name="again.raises", model="gpt-5-mini", postprocess=_raises)
def raises(text: str) -> str:
    return f"Summarise:\n\n{text}"
