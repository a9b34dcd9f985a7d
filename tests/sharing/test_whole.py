"""Shared lines with real workers: each task ends with its own links, and each text is paid once."""

from __future__ import annotations

import pytest
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError

from lowtide import failpoints
from tests.plugins.stack import until
from tests.sharing.conftest import MODULE, Twins

pytestmark = pytest.mark.slow


def test_tasks_of_two_kinds_share_a_line_and_each_ends_in_its_own_way(twins: Twins) -> None:
    c, text = twins.client, "The tide is low."
    first = c.summarize.delay(text)
    twins.at_provider(first)

    loud = c.shout.delay(text)
    own = c.alone.delay(text)
    linked = chain(c.summarize.s(text), c.same.s())()
    many = chord(group([c.summarize.s(text), c.shout.s(text), c.same.s("?")]), c.join.s())()
    bulk = c.summarize.delay_many([text] * 20)
    twins.waiting(loud, own, linked.parent, *bulk.results)
    twins.at_provider(own)
    twins.answer()

    assert first.get(timeout=60) == text
    assert loud.get(timeout=60) == text.upper()
    assert linked.get(timeout=60) == text
    assert many.get(timeout=60) == f"{text} | {text.upper()} | ?"
    assert bulk.get(timeout=60) == [text] * 20
    assert own.get(timeout=60) == text
    twin = [first, loud, linked.parent, *bulk.results]
    assert twins.paid(*twin) == 1
    assert twins.paid(own) == 1
    assert sorted(twins.booked(*twin)) == ["batch", *["shared"] * 22]


def test_of_several_waiting_one_is_revoked(twins: Twins) -> None:
    c, text = twins.client, "The boat is red."
    first = c.summarize.delay(text)
    twins.at_provider(first)
    second, third = c.summarize.delay(text), c.summarize.delay(text)
    twins.waiting(second, third)

    first.revoke()
    third.revoke()

    for gone in (first, third):
        with pytest.raises(TaskRevokedError):
            gone.get(timeout=60)
    ids = [f"{gone.id}.0.0" for gone in (first, third)]
    until(lambda: not twins.rt.ledger.batches_of(ids), "nobody waits for them any more")
    twins.answer()
    assert second.get(timeout=60) == text
    assert twins.paid(first, second, third) == 1
    assert twins.booked(second) == ["batch"]


def test_a_retry_is_a_request_of_its_own(twins: Twins) -> None:
    c, text = twins.client, "The port is open."
    results = [c.again.delay(text) for _ in range(3)]
    twins.waiting(*results)
    twins.at_provider(results[0])
    twins.answer()

    def retried() -> bool:
        rows = twins.rt.ledger.batches_of([f"{result.id}.1.0" for result in results])
        return len(rows) == 3

    until(retried, "all are retried")
    twins.at_provider(results[0])
    twins.answer()

    assert [result.get(timeout=60) for result in results] == [f"{text} Again."] * 3
    assert twins.paid(*results) == 2


def test_each_step_of_generators_is_shared(twins: Twins) -> None:
    twins.steering.turnaround(working="0s")
    c, text = twins.client, "The pier is long."
    results = c.steps.delay_many([text] * 5)

    assert results.get(timeout=60) == [[text, text]] * 5
    assert twins.paid(*results.results) == 2


@pytest.mark.parametrize("how", ["process", failpoints.WORKER])
@pytest.mark.parametrize("place", ["share.joined", "record.recorded", "deliver.settled"])
def test_a_kill_loses_nobody_and_pays_nothing_twice(twins: Twins, place: str, how: str) -> None:
    c, text = twins.client, f"The buoy rings at {place} {how}."
    folder = twins.stack.folder / "failpoints"
    fired = folder / (place + failpoints.FIRED)
    fired.unlink(missing_ok=True)
    early = place == "record.recorded"
    if early:
        (folder / place).write_text(how)
    first = [c.summarize.delay(text) for _ in range(2)]
    if early:
        until(fired.exists, "a process died")
        revive(twins)
    twins.at_provider(first[0])
    if place == "share.joined":
        (folder / place).write_text(how)
    later = [c.shout.delay(text) for _ in range(2)]
    if place == "share.joined":
        until(fired.exists, "a process died")
        revive(twins)
    twins.waiting(*first, *later)
    if place == "deliver.settled":
        (folder / place).write_text(how)
    twins.answer()
    until(fired.exists, "a process died")
    revive(twins)

    assert [result.get(timeout=90) for result in first] == [text] * 2
    assert [result.get(timeout=90) for result in later] == [text.upper()] * 2
    assert twins.paid(*first, *later) == 1
    assert sorted(twins.booked(*first, *later)) == ["batch", "shared", "shared", "shared"]


def revive(twins: Twins) -> None:
    """Starts the workers again that were killed."""
    for number, worker in enumerate(list(twins.stack.workers), start=1):
        if worker.poll() is not None:
            twins.stack.workers.remove(worker)
            twins.stack.worker(MODULE, name=f"w{number + 2}")
