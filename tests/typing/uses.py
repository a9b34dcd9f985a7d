"""The public API as an app uses it: checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_type

from celery import Celery
from pydantic import BaseModel

from lowtide import (
    Answer,
    BatchResult,
    BatchTask,
    Call,
    InvalidAnswer,
    LowtideError,
    RequestRejected,
    TaskReference,
    batch_task,
    chat,
    embed,
    respond,
    task_ref,
)

app = Celery("shop")


class Ticket(BaseModel):
    subject: str
    urgent: bool


@batch_task(model="gpt-5-mini", output=Ticket, autoretry_for=(InvalidAnswer,), deadline="6h")
def triage(mail: str) -> str:
    return f"What is this mail about?\n\n{mail}"


@batch_task(model="gpt-5")
def review(text: str) -> Iterator[Call]:
    yield chat(f"List the weak points of:\n\n{text}")


class Mine(BatchTask):
    abstract = True

    def complete(self, answer: Answer) -> Any:
        return answer.text.upper()


def calls() -> None:
    assert_type(chat("prompt"), Call)
    assert_type(chat([{"role": "user", "content": "x"}], model="m", output=Ticket), Call)
    assert_type(respond("input", instructions="be brief"), Call)
    assert_type(embed(["a", "b"]), Call)


def answers(answer: Answer) -> None:
    assert_type(answer.text, str)
    _ = answer.usage, answer.parsed, answer.embeddings, answer.finish_reason


def results(result: BatchResult) -> None:
    assert_type(result.state, str)
    _ = result.get(timeout=1), result.info


def errors() -> None:
    try:
        triage.delay("mail").get()
    except RequestRejected as error:
        assert_type(error.message, str)
    except LowtideError as error:
        _ = error.details


def elsewhere() -> None:
    assert_type(task_ref("tasks.summarize", app=app), TaskReference)
