"""Answers are judged before a task gets them: here eagerly, with answers from a list."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from pydantic import BaseModel

from lowtide import (
    BatchTask,
    ContentFiltered,
    InvalidAnswer,
    Refused,
    Truncated,
    batch_task,
    chat,
    respond,
)
from tests.canvas import fake_runtime

GOOD = '{"title": "x"}'


class Ticket(BaseModel):
    """What a mail is about."""

    title: str


class Model:
    """A model that gives one answer after the other, and remembers what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    def run(self, lane: Any, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        given = self.answers.pop(0)
        if isinstance(given, dict):
            return given
        if lane.endpoint == "/v1/responses":
            part = {"type": "output_text", "text": given}
            return {"status": "completed", "output": [{"type": "message", "content": [part]}]}
        return {"choices": [{"message": {"content": given}, "finish_reason": "stop"}]}


def made(model: Model, function: Any, **options: Any) -> Any:
    app = Celery("judged", broker="memory://", backend="cache+memory://", set_as_current=False)
    runtime: Any = fake_runtime.install(app)
    runtime.run_now = model.run
    return app.task(base=BatchTask, model="m", shared=False, name="judged", **options)(function)


def ask(text: str) -> Any:
    return text


def ask_responses(text: str) -> Any:
    return respond(text)


def choice(reason: str, **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": reason}]}


def test_the_model_sees_its_answer_and_what_is_wrong_with_it() -> None:
    model = Model('{"titel": "x"}', GOOD)

    task = made(model, ask, output=Ticket, output_retries=1)

    assert task.apply(("a",)).get() == {"title": "x"}
    first, second = model.asked
    assert second["messages"][:1] == first["messages"]
    assert second["messages"][1] == {"role": "assistant", "content": '{"titel": "x"}'}
    assert second["messages"][2]["role"] == "user"
    assert "- title: Field required" in second["messages"][2]["content"]
    assert second["response_format"] == first["response_format"]


def test_so_does_a_model_behind_the_responses_api() -> None:
    model = Model("prose", "prose", GOOD)

    task = made(model, ask_responses, output=Ticket, output_retries=2)

    assert task.apply(("a",)).get() == {"title": "x"}
    roles = [[each["role"] for each in body["input"]] for body in model.asked[1:]]
    assert roles == [["user", "assistant", "user"], ["user", *["assistant", "user"] * 2]]
    assert model.asked[1]["input"][0] == {"role": "user", "content": "a"}


def test_without_retries_it_is_asked_once() -> None:
    model = Model("prose")

    with pytest.raises(InvalidAnswer) as caught:
        made(model, ask, output=Ticket).apply(("a",)).get()

    assert len(model.asked) == 1
    assert caught.value.attempts == []


def test_after_its_last_retry_the_error_lists_every_answer() -> None:
    model = Model("prose", "{}", "[]")

    with pytest.raises(InvalidAnswer) as caught:
        made(model, ask, output=Ticket, output_retries=2).apply(("a",)).get()

    said = [each["message"] for each in caught.value.attempts]
    assert [message.rpartition(": ")[2] for message in said] == [
        "the whole (json_invalid).",
        "title (missing).",
        "the whole (model_type).",
    ]
    assert all(message in caught.value.message for message in said)
    assert "prose" not in str(caught.value.args)


def test_each_step_of_a_generator_has_its_own_retries() -> None:
    def steps() -> Any:
        first = yield "a"
        second = yield chat("b")
        return [first.parsed, second.parsed]

    model = Model("prose", GOOD, "prose", GOOD)

    task = made(model, steps, output=Ticket, output_retries=1)

    assert task.apply().get() == [{"title": "x"}, {"title": "x"}]
    assert len(model.asked) == 4


def test_what_cannot_be_otherwise_is_not_asked_again() -> None:
    for answer in (choice("stop", refusal="No."), choice("length", content="{")):
        model = Model(answer)
        with pytest.raises(InvalidAnswer):
            made(model, ask, output=Ticket, output_retries=3).apply(("a",)).get()
        assert len(model.asked) == 1


def test_a_request_that_would_be_too_large_is_not_made() -> None:
    model = Model("x" * 1_000_000)

    with pytest.raises(InvalidAnswer, match="could not be asked for again: The request for m is"):
        made(model, ask, output=Ticket, output_retries=1).apply(("a",)).get()

    assert len(model.asked) == 1


@pytest.mark.parametrize(
    ("reason", "answer", "kind", "text"),
    [
        ("refusal", choice("stop", refusal="No."), Refused, "No."),
        ("length", choice("length", content="The ti"), Truncated, "The ti"),
        ("content_filter", choice("content_filter", content="The"), ContentFiltered, "The"),
        (
            "length",
            {"choices": [*choice("stop", content="a")["choices"], {"finish_reason": "length"}]},
            Truncated,
            "a",
        ),
    ],
)
def test_answers_of_no_use_are_errors_where_the_task_says_so(
    reason: str, answer: dict[str, Any], kind: type[InvalidAnswer], text: str
) -> None:
    others = {"refusal", "content_filter", "length"} - {reason}

    with pytest.raises(kind) as caught:
        made(Model(answer), ask, errors_on=reason).apply(("a",)).get()
    assert caught.value.text == text
    if reason != "refusal":
        kept = made(Model(answer), ask, errors_on=others).apply(("a",)).get()
        assert kept == text


@pytest.mark.parametrize(
    ("reason", "kind"), [("max_output_tokens", Truncated), ("content_filter", ContentFiltered)]
)
def test_incomplete_responses_are_errors_where_the_task_says_so(
    reason: str, kind: type[InvalidAnswer]
) -> None:
    answer = {"status": "incomplete", "incomplete_details": {"reason": reason}, "output": []}

    with pytest.raises(kind):
        made(Model(answer), ask_responses, errors_on=("length", "content_filter")).apply("a").get()


def test_misspelt_demands_are_refused_when_the_task_is_made() -> None:
    with pytest.raises(ValueError, match="did you mean 'refusal'"):
        batch_task(errors_on={"refused"})
    with pytest.raises(TypeError, match="output_retries is a number of times, not '2'"):
        batch_task(output_retries="2")
    with pytest.raises(ValueError, match="cannot be negative"):
        assert made(Model(), ask, output_retries=-1).name
