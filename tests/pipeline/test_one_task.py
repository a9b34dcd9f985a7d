"""A batch goes on in the task that took its last step, where nothing else waits for that task."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from lowtide.errors import AttemptsExhausted
from lowtide.outcomes import Answered, Packer
from lowtide.runtime import Runtime
from lowtide.submit import submit
from tests.pipeline.conftest import Interfering, requests, sealed
from tests.plugins.stack import until


@pytest.fixture
def sent(rt: Runtime, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The steps that were sent as messages."""
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(rt, "send", lambda *step: found.append(step))
    return found


def step(rt: Runtime, verb: str, *args: Any) -> None:
    rt.app.finalize()
    rt.app.tasks[f"lowtide.{verb}"](*args)


def over(rt: Runtime, provider: Interfering, batch_id: str) -> None:
    """Waits until the provider is done; nothing of ours has seen it."""
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    name = str(batch.provider_batch_id)
    until(lambda: provider.status(name).ended, "the batch ended")


def state(rt: Runtime, batch_id: str) -> str | None:
    batch = rt.ledger.batch(batch_id)
    return None if batch is None else batch.state


def test_a_buffer_is_submitted_by_what_seals_it(
    rt: Runtime, provider: Interfering, sent: list[Any]
) -> None:
    given = requests(2)
    rt.buffer.append(given)

    step(rt, "seal", given[0].lane.key)

    [batch] = rt.ledger.batches()
    assert (batch.state, sent) == ("SUBMITTED", [])
    assert rt.timers.due_at("submit", batch.id) is None
    assert rt.timers.due_at("poll", batch.id) is not None


def test_a_batch_that_ended_is_fetched_and_delivered_at_once(
    rt: Runtime, provider: Interfering, sent: list[Any], told: dict[str, Any]
) -> None:
    given = requests(3)
    batch_id = sealed(rt, given)
    submit(rt, batch_id)
    over(rt, provider, batch_id)

    step(rt, "poll", batch_id)

    assert told.keys() == {request.task_id for request in given}
    assert (state(rt, batch_id), sent) == ("DELIVERED", [])
    for verb in ("poll", "fetch", "deliver"):
        assert rt.timers.due_at(verb, batch_id) is None


def test_several_slices_are_sent_so_that_all_workers_deliver(
    rt: Runtime, provider: Interfering, sent: list[Any], told: dict[str, Any]
) -> None:
    rt.settings.slice_requests = 2
    batch_id = sealed(rt, requests(3))
    submit(rt, batch_id)
    over(rt, provider, batch_id)

    step(rt, "poll", batch_id)

    assert sent == [("deliver", batch_id, 0), ("deliver", batch_id, 1)]
    assert (state(rt, batch_id), told) == ("FETCHED", {})
    assert rt.timers.due_at("deliver", batch_id) is not None


def test_deliver_steps_with_a_queue_of_their_own_are_sent(
    rt: Runtime, provider: Interfering, sent: list[Any], told: dict[str, Any]
) -> None:
    rt.settings.deliver_queue = "answers"
    batch_id = sealed(rt, requests(1))
    submit(rt, batch_id)
    over(rt, provider, batch_id)

    step(rt, "poll", batch_id)

    assert sent == [("deliver", batch_id, 0)]
    assert told == {}


def test_batches_that_ended_together_are_sent_to_all_workers(
    rt: Runtime, provider: Interfering, sent: list[Any]
) -> None:
    batch_ids = [sealed(rt, requests(1)) for _ in range(2)]
    for batch_id in batch_ids:
        submit(rt, batch_id)
        over(rt, provider, batch_id)

    step(rt, "poll", batch_ids)

    assert sorted(sent) == sorted(("fetch", batch_id) for batch_id in batch_ids)
    assert [state(rt, batch_id) for batch_id in batch_ids] == ["ENDED", "ENDED"]


def test_a_step_that_dies_here_is_taken_again_by_its_timer(
    rt: Runtime, provider: Interfering, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = sealed(rt, requests(1))
    submit(rt, batch_id)
    over(rt, provider, batch_id)
    provider.before["download"] = lambda *_: (_ for _ in ()).throw(SystemExit("killed"))

    with pytest.raises(SystemExit):
        step(rt, "poll", batch_id)

    assert state(rt, batch_id) == "ENDED"
    assert rt.timers.due_at("fetch", batch_id) is not None


def test_an_answer_that_cannot_be_read_fails_its_task(
    rt: Runtime, provider: Interfering, sent: list[Any], told: dict[str, Any]
) -> None:
    rt.settings.deliver_queue = "answers"
    [request] = requests(1)
    batch_id = sealed(rt, [request])
    submit(rt, batch_id)
    over(rt, provider, batch_id)
    step(rt, "poll", batch_id)
    broken = Packer().pack([Answered(request.custom_id, 200, b'{"choices": [', None)])
    rt.slices.put(batch_id, 0, broken, 60.0)

    step(rt, "deliver", batch_id, 0)

    assert isinstance(told[request.task_id], AttemptsExhausted)
    assert state(rt, batch_id) == "DELIVERED"


def test_an_answer_waits_for_few_commits(
    rt: Runtime, provider: Interfering, sent: list[Any], told: dict[str, Any]
) -> None:
    given = requests(1)
    batch_id = sealed(rt, given)
    submit(rt, batch_id)
    over(rt, provider, batch_id)
    synced: list[int] = []

    def changes(connection: Any) -> int:
        return int(connection.connection.dbapi_connection.total_changes)

    @event.listens_for(rt.ledger._db.engine, "commit")
    def count(connection: Any) -> None:
        # A transaction that changed nothing writes nothing, and waits for no disk.
        changed = changes(connection)
        if not told and changed != (synced or before)[-1]:
            synced.append(changed)

    with rt.ledger._db.read() as connection:
        before = [changes(connection)]
    step(rt, "poll", batch_id)

    assert told.keys() == {given[0].task_id}
    # The end; the lease to fetch it; that it is fetched, and the lease goes back; the claim.
    assert len(synced) == 4
