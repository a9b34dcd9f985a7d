"""Inputs are judged before they are sent: what is flagged fails, unpaid."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from lowtide.errors import Flagged
from tests.checks.conftest import Rig

pytestmark = pytest.mark.slow
GOOD, BAD = "The boat is red.", "I will kill you."


def named() -> str:
    return f"m{uuid.uuid4().hex[:16]}"


def test_a_good_input_is_judged_and_then_sent(rig: Rig) -> None:
    name = named()

    result = rig.result(rig.client.careful.apply_async([GOOD], task_id=name))

    assert set(result) == {"subject", "urgent"}
    assert rig.sent(name) == {"0": 1, "1": 1}


def test_a_flagged_input_fails_unpaid(rig: Rig) -> None:
    name = named()

    error = rig.result(rig.client.careful.apply_async([BAD], task_id=name))

    assert isinstance(error, Flagged)
    assert "violence" in error.details["categories"]
    assert error.details["task_id"] == name
    assert rig.sent(name) == {"0": 1}  # the judgement alone


def test_an_answer_that_does_not_validate_is_asked_for_again(rig: Rig) -> None:
    name = named()
    rig.steering.add_fault("wrong_form", match=rf"^{name}\.\d+\.1$")

    result = rig.result(rig.client.careful.apply_async([GOOD], task_id=name))

    assert set(result) == {"subject", "urgent"}
    assert rig.sent(name) == {"0": 1, "1": 1, "2": 1}


def test_at_once_nothing_of_a_flagged_input_is_in_a_batch(rig: Rig) -> None:
    bad, good = named(), named()

    flagged = rig.client.careful_at_once.apply_async([BAD], task_id=bad)
    fine = rig.client.careful_at_once.apply_async([GOOD], task_id=good)

    assert isinstance(rig.result(flagged), Flagged)
    assert rig.result(fine) == GOOD
    assert rig.sent(bad) == {}
    assert rig.sent(good) == {"0": 1}


def test_at_once_falls_back_to_a_batch_while_the_provider_is_away(rig: Rig) -> None:
    bad, good = named(), named()
    rig.steering.add_fault("server_error", match="^POST /v1/moderations$")

    flagged = rig.client.careful_at_once.apply_async([BAD], task_id=bad)
    fine = rig.client.careful_at_once.apply_async([GOOD], task_id=good)

    assert isinstance(rig.result(flagged), Flagged)
    assert rig.result(fine) == GOOD
    assert rig.sent(bad) == {"0": 1}
    assert rig.sent(good) == {"0": 1, "1": 1}


def test_each_request_of_a_generator_is_judged(rig: Rig) -> None:
    result = rig.result(rig.client.careful_steps.delay([GOOD, BAD, "The sea is calm."]))

    assert result[0] == GOOD
    assert "violence" in result[1]
    assert result[2] == "The sea is calm."


@pytest.mark.parametrize("place", ["deliver.resumed", "deliver.continued"])
def test_a_worker_killed_after_the_judgement_sends_it_once(rig: Rig, place: str) -> None:
    name = named()
    fired = rig.killed_at(place)

    result: Any = rig.result(rig.client.careful.apply_async([GOOD], task_id=name))

    assert fired.exists()
    assert set(result) == {"subject", "urgent"}
    assert rig.sent(name) == {"0": 1, "1": 1}


def test_a_call_that_waits_for_its_result_is_judged_too(rig: Rig) -> None:
    for task in (rig.client.careful, rig.client.careful_at_once):
        with pytest.raises(Flagged):
            task.apply([BAD]).get()
    assert rig.client.careful_at_once.apply([GOOD]).get() == GOOD
    assert set(rig.client.careful.apply([GOOD]).get()) == {"subject", "urgent"}
