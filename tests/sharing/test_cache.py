"""The answer cache with real workers: what was answered is not asked, nor paid, again."""

from __future__ import annotations

import pytest
from celery import chain, chord, group

from lowtide.errors import InvalidAnswer
from tests.plugins.stack import until
from tests.sharing.conftest import Twins

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _fast_provider(twins: Twins, _slow_provider: None) -> None:
    twins.steering.turnaround(working="0s")


def test_a_later_call_is_answered_at_once_with_all_that_hangs_on_it(twins: Twins) -> None:
    c, text = twins.client, "The lamp is lit."
    first = c.kept.delay(text)
    assert first.get(timeout=60) == text

    again = c.kept.delay(text)
    linked = chain(c.kept.s(text), c.same.s())()
    many = chord(group([c.kept.s(text), c.kept.s(text)]), c.join.s())()
    bulk = c.kept.delay_many([text] * 20)

    assert again.get(timeout=60) == text
    assert linked.get(timeout=60) == text
    assert many.get(timeout=60) == f"{text} | {text}"
    assert bulk.get(timeout=60) == [text] * 20
    assert twins.paid(first, again, linked.parent, *bulk.results) == 1


def test_a_call_may_do_without(twins: Twins) -> None:
    c, text = twins.client, "The mast is tall."
    results = [c.kept.delay(text)]
    assert results[0].get(timeout=60) == text

    results.append(c.kept.apply_async((text,), cache=0))
    assert results[1].get(timeout=60) == text

    assert twins.paid(*results) == 2


def test_what_a_task_could_not_use_is_asked_again(twins: Twins) -> None:
    c, text = twins.client, "The rope is torn."
    results = [c.fails.delay(text)]
    with pytest.raises(ValueError, match="torn"):
        results[0].get(timeout=60)

    results.append(c.kept.delay(text))
    assert results[1].get(timeout=60) == text

    assert twins.paid(*results) == 2


def test_an_answer_that_does_not_validate_is_asked_again(twins: Twins) -> None:
    c, text = twins.client, "Subject: fog. Help."
    twins.steering.add_fault("wrong_form", count=1)
    results = [c.triage.delay(text)]
    with pytest.raises(InvalidAnswer):
        results[0].get(timeout=60)
    twins.steering.clear_faults()

    results.append(c.triage.delay(text))
    assert set(results[1].get(timeout=60)) == {"subject"}
    results.append(c.triage.delay(text))
    assert set(results[2].get(timeout=60)) == {"subject"}

    assert twins.paid(*results) == 2


def test_the_steps_of_a_generator_are_answered_too(twins: Twins) -> None:
    c, text = twins.client, "The net is full."
    results = [c.kept_steps.delay(text)]
    expected = results[0].get(timeout=60)

    results.append(c.kept_steps.delay(text))
    assert results[1].get(timeout=60) == expected

    assert twins.paid(*results) == 2


def test_a_message_that_is_handled_by_itself_is_answered_too(twins: Twins) -> None:
    c, text = twins.client, "The deck is wet."
    results = [c.kept.delay(text), c.kept_steps.delay(text)]
    expected = [result.get(timeout=60) for result in results]

    # With a time limit a message takes Celery's ordinary way.
    results += [task.apply_async((text,), time_limit=60) for task in (c.kept, c.kept_steps)]

    assert [result.get(timeout=60) for result in results[2:]] == expected
    # The generator's first step asked what the other task asks too, at the same time.
    assert twins.paid(*results[2:]) == 0
    until(lambda: twins.rt.ledger.task(results[2].id) == [], "nothing of it is in the ledger")
