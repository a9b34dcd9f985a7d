"""A user's app: its own Celery, its own tasks, nothing switched on by hand."""

from __future__ import annotations

import gc
import os

from celery import Celery
from pydantic import BaseModel

from lowtide import BatchTask, batch_task, chat

URL = os.environ.get("LOWTIDE_REDIS_URL", "redis://localhost:6379/0")
app = Celery("shop", broker=URL, backend=os.environ.get("TEST_BACKEND", URL))
app.conf.update(broker_connection_retry_on_startup=True, worker_send_task_events=True)


class Ticket(BaseModel):
    """What a mail is about."""

    subject: str
    urgent: bool


@batch_task(name="shop.summarize", model="gpt-5-mini")
def summarize(text: str, max_words: int = 60) -> str:
    return f"Summarise in at most {max_words} words:\n\n{text}"


@app.task(base=BatchTask, model="gpt-5-mini", output=Ticket, name="shop.triage")
def triage(mail: str) -> str:
    return f"What is this mail about?\n\n{mail}"


@batch_task(name="shop.review", model="gpt-5-mini")
def review(text: str):
    first = yield chat(f"Summarise:\n\n{text}")
    second = yield chat(f"Summarise:\n\n{first.text} Reviewed twice.")
    return [first.text, second.text]


@batch_task(name="shop.vectors", model="text-embedding-3-small", endpoint="/v1/embeddings")
def vectors(texts: list[str]) -> list[str]:
    return texts


@batch_task(name="shop.respond", model="gpt-5-mini", endpoint="/v1/responses")
def respond(text: str) -> str:
    return f"Summarise:\n\n{text}"


@batch_task(name="shop.bad", model="gpt-5-mini")
def bad(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 99}


@app.task(name="shop.set_aside")
def set_aside() -> int:
    """How many objects the process no longer looks through, after a full collection."""
    gc.collect()
    return gc.get_freeze_count()


@app.task(name="shop.join")
def join(parts: list[str]) -> str:
    return " | ".join(parts)


@app.task(name="shop.noop")
def noop(text: str) -> str:
    return text
