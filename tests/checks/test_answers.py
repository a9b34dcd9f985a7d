"""Answers that do not validate are asked for again; those of no use can be errors."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from lowtide.errors import ContentFiltered, InvalidAnswer, Refused, Truncated
from tests.checks.conftest import Rig
from tests.plugins.stack import until

pytestmark = pytest.mark.slow
MAIL = "Subject: flood. The harbour is under water, come at once."


def called(task: Any, *args: Any) -> Any:
    """A call whose task id no other test has."""
    return task.apply_async(args, task_id=f"c{uuid.uuid4().hex[:16]}")


def prose(rig: Rig, name: str, *steps: int) -> None:
    """The answers to these steps of a task are prose in place of JSON."""
    for step in steps:
        rig.steering.add_fault("wrong_form", match=rf"^{name}\.\d+\.{step}$")


@pytest.mark.parametrize("task", ["triage", "at_responses"])
def test_the_model_is_asked_again_until_its_answer_validates(rig: Rig, task: str) -> None:
    name = f"c{uuid.uuid4().hex[:16]}"
    prose(rig, name, 0)

    result = getattr(rig.client, task).apply_async([MAIL], task_id=name)

    assert set(rig.result(result)) == {"subject", "urgent"}
    assert rig.sent(name) == {"0": 1, "1": 1}
    rows = until(lambda: _settled(rig, name, 2), "both are booked")
    assert [row.state for row in rows] == ["CONTINUED", "DELIVERED"]
    assert all(row.cost for row in rows)


def test_the_last_failure_lists_all_attempts(rig: Rig) -> None:
    name = f"c{uuid.uuid4().hex[:16]}"
    prose(rig, name, 0, 1, 2)

    error = rig.result(rig.client.triage.apply_async([MAIL], task_id=name))

    assert isinstance(error, InvalidAnswer)
    assert [each["code"] for each in error.attempts] == ["invalid_output"] * 3
    assert error.message.startswith("None of 3 answers validates: 1. The answer does not validate")
    assert error.details["task_id"] == name
    assert rig.sent(name) == {"0": 1, "1": 1, "2": 1}
    rows = until(lambda: _settled(rig, name, 3), "all are booked")
    assert [row.state for row in rows] == ["CONTINUED", "CONTINUED", "FAILED"]
    assert all(row.cost for row in rows)


def test_each_step_of_a_generator_is_asked_again_for_itself(rig: Rig) -> None:
    name = f"c{uuid.uuid4().hex[:16]}"
    prose(rig, name, 0, 2)

    first, second = rig.result(rig.client.two_steps.apply_async([MAIL], task_id=name))

    assert set(first) == {"subject", "urgent"}
    assert set(second) == {"city"}
    assert rig.sent(name) == {"0": 1, "1": 1, "2": 1, "3": 1}


def test_a_generator_can_catch_the_last_failure(rig: Rig) -> None:
    name = f"c{uuid.uuid4().hex[:16]}"
    prose(rig, name, 0, 1)

    assert rig.result(rig.client.goes_on.apply_async([MAIL], task_id=name)) == [2, ["city"]]
    assert rig.sent(name) == {"0": 1, "1": 1, "2": 1}


@pytest.mark.parametrize("place", ["deliver.resumed", "deliver.continued", "deliver.settled"])
def test_a_worker_killed_while_it_asks_again_asks_once(rig: Rig, place: str) -> None:
    name = f"c{uuid.uuid4().hex[:16]}"
    prose(rig, name, 0)
    fired = rig.killed_at(place)

    result = rig.client.two_steps.apply_async([MAIL], task_id=name)

    first, second = rig.result(result)
    assert fired.exists()
    assert (set(first), set(second)) == ({"subject", "urgent"}, {"city"})
    assert rig.sent(name) == {"0": 1, "1": 1, "2": 1}


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("refusal", Refused, "I'm sorry, but I can't help with that."),
        ("filtered", ContentFiltered, "The boat"),
    ],
)
def test_answers_of_no_use_can_be_errors(
    rig: Rig, fault: str, kind: type[InvalidAnswer], text: str
) -> None:
    rig.steering.add_fault(fault, match="^strict-")
    name = f"strict-{uuid.uuid4().hex[:16]}"

    error = rig.result(rig.client.strict.apply_async(["The boat is red."], task_id=name))

    assert type(error) is kind
    assert error.text == text
    assert error.details["task_id"] == name
    assert text not in repr(error)
    assert text not in error.message


def test_a_response_that_is_cut_off_can_be_an_error(rig: Rig) -> None:
    error = rig.result(called(rig.client.short, "The tide comes and goes, twice a day. " * 20))

    assert isinstance(error, Truncated)
    assert error.text
    assert error.text.startswith("The tide")


def test_a_task_sees_them_where_they_are_no_errors(rig: Rig) -> None:
    rig.steering.add_fault("refusal", match="^declined-")
    rig.steering.add_fault("filtered", match="^filtered-")
    tail = uuid.uuid4().hex[:16]

    declined = rig.client.lenient.apply_async(["The boat is red."], task_id=f"declined-{tail}")
    filtered = rig.client.lenient.apply_async(["The boat is red."], task_id=f"filtered-{tail}")

    assert rig.result(declined) == ["", "I'm sorry, but I can't help with that.", "stop"]
    assert rig.result(filtered) == ["The boat", None, "content_filter"]


def _settled(rig: Rig, name: str, count: int) -> Any:
    rows = [row for row in rig.rt.ledger.task(name) if row.state != "RECORDED"]
    return rows if len(rows) == count else None
