"""Batch tasks that check what they send and what they get."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from pydantic import BaseModel

from lowtide import Answer, Flagged, InvalidAnswer, batch_task, chat, respond

URL = os.environ.get("LOWTIDE_REDIS_URL", "redis://localhost:6379/0")
app = Celery("checks", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True

MODEL = "gpt-5-mini"
EVERY = ("refusal", "content_filter", "length")


class Ticket(BaseModel):
    """What a mail is about."""

    subject: str
    urgent: bool


class Place(BaseModel):
    """Where something is."""

    city: str


@batch_task(name="checks.triage", model=MODEL, output=Ticket, output_retries=2)
def triage(mail: str) -> str:
    return mail


@batch_task(name="checks.at_responses", model=MODEL, output=Ticket, output_retries=1)
def at_responses(mail: str) -> Any:
    return respond(mail)


@batch_task(name="checks.two_steps", model=MODEL, output=Ticket, output_retries=1)
def two_steps(mail: str) -> Any:
    first: Answer = yield mail
    second: Answer = yield chat("Where is that?", output=Place)
    return [first.parsed, second.parsed]


@batch_task(name="checks.goes_on", model=MODEL, output=Ticket, output_retries=1)
def goes_on(mail: str) -> Any:
    try:
        yield mail
    except InvalidAnswer as error:
        answer: Answer = yield chat(f"Summarise:\n\n{mail}", output=Place)
        return [len(error.attempts), sorted(answer.parsed.model_dump())]


@batch_task(name="checks.strict", model=MODEL, errors_on=EVERY)
def strict(text: str) -> str:
    return text


@batch_task(name="checks.lenient", model=MODEL)
def lenient(text: str) -> Any:
    answer: Answer = yield text
    return [answer.text, answer.refusal, answer.finish_reason]


@batch_task(name="checks.careful", model=MODEL, moderate=True, output=Ticket, output_retries=1)
def careful(text: str) -> str:
    return text


@batch_task(name="checks.careful_at_once", model=MODEL, moderate="now")
def careful_at_once(text: str) -> str:
    return text


@batch_task(name="checks.careful_steps", model=MODEL, moderate=True)
def careful_steps(texts: list[str]) -> Any:
    found = []
    for text in texts:
        try:
            answer: Answer = yield text
            found.append(answer.text)
        except Flagged as flagged:
            found.append(flagged.details["categories"])
    return found


@batch_task(name="checks.short", model=MODEL, errors_on="length", endpoint="/v1/responses")
def short(text: str) -> Any:
    return respond(text, max_output_tokens=16)
