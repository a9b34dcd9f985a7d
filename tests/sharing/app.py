"""An app whose calls often ask the same."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from pydantic import BaseModel

from lowtide import Answer, batch_task, chat

URL = os.environ.get("LOWTIDE_REDIS_URL", "redis://localhost:6379/0")
app = Celery("twins", broker=URL, backend=URL)
app.conf.update(
    broker_connection_retry_on_startup=True,
    # The messages of a killed worker come back within seconds.
    broker_transport="lowtide.broker:Transport",
    broker_transport_options={
        "visibility_timeout": 5,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 2,
    },
)


def shouted(answer: Answer) -> str:
    return answer.text.upper()


@batch_task(name="twins.summarize", model="gpt-5-mini", coalesce=True)
def summarize(text: str) -> str:
    return f"Summarise:\n\n{text}"


@batch_task(name="twins.shout", model="gpt-5-mini", coalesce=True, postprocess=shouted)
def shout(text: str) -> str:
    return f"Summarise:\n\n{text}"


@batch_task(name="twins.alone", model="gpt-5-mini")
def alone(text: str) -> str:
    return f"Summarise:\n\n{text}"


@batch_task(name="twins.steps", model="gpt-5-mini", coalesce=True)
def steps(text: str) -> Any:
    first = yield chat(f"Summarise:\n\n{text}")
    second = yield chat(f"Summarise:\n\n{first.text} Twice.")
    return [first.text, second.text]


@batch_task(
    name="twins.again", model="gpt-5-mini", coalesce=True, max_retries=1, default_retry_delay=0
)
def again(text: str) -> str:
    return f"Summarise:\n\n{text}"


def once_more(answer: Answer) -> str:
    if again.request.retries == 0:
        raise again.retry()
    return f"{answer.text} Again."


again.postprocess = once_more


@batch_task(name="twins.kept", model="gpt-5-mini", cache="1h")
def kept(text: str) -> str:
    return f"Summarise:\n\n{text}"


def refused(answer: Answer) -> str:
    raise ValueError(answer.text)


@batch_task(name="twins.fails", model="gpt-5-mini", cache="1h", postprocess=refused)
def fails(text: str) -> str:
    return f"Summarise:\n\n{text}"


@batch_task(name="twins.kept_steps", model="gpt-5-mini", cache="1h")
def kept_steps(text: str) -> Any:
    first = yield chat(f"Summarise:\n\n{text}")
    second = yield chat(f"Summarise:\n\n{first.text} It is two.")
    return [first.text, second.text]


class Ticket(BaseModel):
    """What a mail is about."""

    subject: str


@batch_task(name="twins.triage", model="gpt-5-mini", cache="1h", output=Ticket)
def triage(mail: str) -> str:
    return f"What is this mail about?\n\n{mail}"


@batch_task(name="twins.patient", model="gpt-5-nano", tenant="acme")
def patient(text: str) -> str:
    return f"Summarise:\n\n{text}"


@batch_task(name="twins.urgent", model="gpt-5-nano", max_wait=0)
def urgent(text: str) -> str:
    return f"Summarise:\n\n{text}"


@app.task(name="twins.join")
def join(parts: list[str]) -> str:
    return " | ".join(parts)


@app.task(name="twins.same")
def same(value: Any) -> Any:
    return value
