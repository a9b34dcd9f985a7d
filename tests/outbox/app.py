"""Tasks whose results go elsewhere too."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from lowtide import Answer, batch_task, chat

URL = os.environ.get("LOWTIDE_REDIS_URL", "redis://localhost:6379/0")
app = Celery("elsewhere", broker=URL, backend=URL)
app.conf.update(broker_connection_retry_on_startup=True)


@batch_task(name="elsewhere.plain", model="gpt-5-mini")
def plain(text: str) -> str:
    return f"Summarise:\n\n{text}"


@batch_task(name="elsewhere.told", model="gpt-5-mini", deliver_to="crm")
def told(text: str) -> str:
    return f"Summarise:\n\n{text}"


@batch_task(name="elsewhere.archived", model="gpt-5-mini", result_backend="archive")
def archived(text: str):
    answer = yield chat(f"Summarise:\n\n{text}")
    return {"summary": answer.text, "of": text}


@batch_task(name="elsewhere.bad", model="gpt-5-mini")
def bad(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 99}


@batch_task(name="elsewhere.unaskable", model="gpt-5-mini", deliver_to=["crm", "feed"])
def unaskable(text: str) -> Any:
    raise KeyError(text)


@batch_task(name="elsewhere.known", model="gpt-5-mini", deliver_to="feed")
def known(text: str) -> Any:
    if not text:
        yield chat("never")
    return text.upper()


def _two(answer: Answer) -> Any:
    return [answer.text, answer.text]


@batch_task(name="elsewhere.silent", model="gpt-5-mini", postprocess=_two, ignore_result=True)
def silent(text: str) -> str:
    return f"Summarise:\n\n{text}"


@app.task(name="elsewhere.count")
def count(parts: list[str]) -> int:
    return len(parts)
