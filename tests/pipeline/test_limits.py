"""What an account may have enqueued and create is kept to, by all replicas together."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lowtide import control, keys, limits
from lowtide.fetch import fetch
from lowtide.ledger import BatchState
from lowtide.runtime import Runtime
from lowtide.submit import submit
from lowtide.track import track
from tests.pipeline.conftest import Interfering, billed, ended, requests, sealed
from tests.plugins.stack import Simulator

TOLD = (
    "Enqueued token limit reached for gpt-5-mini in organization org-1. Limit: 2,000,000 enqueued "
    "tokens. Please try again once some in_progress batches have been completed."
)


def state_of(rt: Runtime, batch_id: str) -> str:
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    return str(batch.state)


@pytest.fixture
def budget(rt: Runtime) -> None:
    """Room for one batch of two requests of 20 tokens, not for two."""
    rt.settings.enqueued_tokens = 60


def test_a_batch_waits_while_another_uses_the_budget(
    rt: Runtime, provider: Interfering, simulator: Simulator, budget: None
) -> None:
    given = requests(2), requests(2)
    first, second = (sealed(rt, each) for each in given)

    submit(rt, first)
    waits = submit(rt, second)

    assert state_of(rt, second) == "HELD"
    assert waits is not None
    assert waits.verb == "submit"
    reason = rt.ledger.batch(second)
    assert reason is not None
    assert "40 of 60 tokens" in str(reason.reason)
    ended(rt, first)
    # The end of the first makes the second due at once.
    assert rt.timers.due_at("submit", second) == pytest.approx(rt.clock.now(), abs=5)
    submit(rt, second)
    ended(rt, second)
    assert billed(simulator, [*given[0], *given[1]]) == [1] * 4


def test_a_batch_without_room_leaves_the_probe_of_its_account_to_another(
    rt: Runtime, provider: Interfering, budget: None
) -> None:
    first, without_room = (sealed(rt, requests(2)) for _ in range(2))
    other = sealed(rt, requests(2, model="gpt-5-nano"))
    submit(rt, first)
    control.suspend(rt, "default", "no quota")
    rt.redis.delete(keys.probe(rt.settings.namespace, "default"))

    submit(rt, without_room)
    submit(rt, other)

    assert state_of(rt, without_room) == "HELD"
    assert state_of(rt, other) == "SUBMITTED"
    assert control.pauses(rt) == {}


def test_held_batches_go_in_the_order_in_which_they_were_sealed(
    rt: Runtime, provider: Interfering, budget: None
) -> None:
    first, second, third = (sealed(rt, requests(2)) for _ in range(3))
    submit(rt, first)
    submit(rt, second)
    submit(rt, third)
    ended(rt, first)

    submit(rt, third)
    assert state_of(rt, third) == "HELD"
    submit(rt, second)
    assert state_of(rt, second) == "SUBMITTED"


def test_a_batch_larger_than_the_budget_is_cut(
    rt: Runtime, provider: Interfering, simulator: Simulator, budget: None
) -> None:
    given = requests(5)
    whole = sealed(rt, given)

    assert submit(rt, whole) is None

    parts = [batch for batch in rt.ledger.batches() if batch.parent == whole]
    assert sorted(batch.requests for batch in parts) == [1, 2, 2]
    assert state_of(rt, whole) == "CANCELLED"
    for part in sorted(parts, key=lambda batch: batch.sealed_at):
        submit(rt, part.id)
        ended(rt, part.id)
    assert billed(simulator, given) == [1] * 5


def test_the_limit_is_learned_from_the_refusal(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    given = requests(3)
    batch_id = sealed(rt, given)
    submit(rt, batch_id)

    def over(remote: Any) -> Any:
        error = provider_error("token_limit_exceeded", TOLD)
        return dataclasses.replace(remote, status="failed", errors=(error,), output_file_id=None)

    provider.after["status"] = over
    provider.after["statuses"] = lambda found: {k: over(v) for k, v in found.items()}
    ended(rt, batch_id)
    after = fetch(rt, batch_id)

    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    assert limits.limit_of(rt, batch) == 2_000_000
    assert after is not None
    assert after.slices == 0
    (again,) = [each for each in rt.ledger.batches() if each.parent == batch_id]
    assert rt.ledger.ids(again.id) == {request.custom_id for request in given}
    assert rt.ledger.attempt(again.id) == 1


def provider_error(code: str, message: str) -> Any:
    from lowtide.providers import BatchError

    return BatchError(code=code, line=None, message=message)


def test_no_more_batches_are_created_than_an_hour_allows(
    rt: Runtime, provider: Interfering
) -> None:
    rt.settings.creations_per_hour = 1
    first, second = sealed(rt, requests(1)), sealed(rt, requests(1))
    submit(rt, first)

    waits = submit(rt, second)

    assert state_of(rt, second) == "HELD"
    assert waits is not None
    assert waits.at is not None
    assert 0 < waits.at - rt.clock.now() <= 3600


def test_a_paused_lane_holds_its_batches_until_it_is_resumed(
    rt: Runtime, provider: Interfering
) -> None:
    given = requests(1)
    batch_id = sealed(rt, given)
    control.pause(rt, given[0].lane.key, "the prompt is wrong")

    submit(rt, batch_id)
    assert state_of(rt, batch_id) == "HELD"
    assert "upload" not in provider.calls

    control.resume(rt, given[0].lane.key)
    submit(rt, batch_id)
    assert state_of(rt, batch_id) == "SUBMITTED"


def test_a_batch_far_past_its_window_is_cancelled_once_and_followed_to_its_end(
    rt: Runtime, provider: Interfering
) -> None:
    batch_id = sealed(rt, requests(1))
    submit(rt, batch_id)
    rt.settings.stuck_after = 0.0

    def stuck(remote: Any) -> Any:
        return dataclasses.replace(remote, status="in_progress")

    provider.after["statuses"] = lambda found: {k: stuck(v) for k, v in found.items()}
    submitted = rt.ledger.batch(batch_id)
    assert submitted is not None
    real, late = rt.clock, float(submitted.expires_at or 0) + 10

    class Later(type(real)):  # type: ignore[misc]
        def now(self) -> float:
            return late

    rt.clock = Later()
    rt.ledger._clock = rt.clock
    after = track(rt, [batch_id])

    assert provider.calls.count("cancel") == 1
    assert after[batch_id] is not None
    assert state_of(rt, batch_id) == BatchState.SUBMITTED


def test_a_batch_that_the_provider_lost_is_sent_again_once_its_window_is_long_over(
    rt: Runtime, provider: Interfering
) -> None:
    given = requests(1)
    batch_id = sealed(rt, given)
    submit(rt, batch_id)
    provider.after["statuses"] = lambda _found: {}

    assert track(rt, [batch_id])[batch_id] is not None
    assert state_of(rt, batch_id) == "SUBMITTED"
    rt.settings.stuck_after = -90_000.0
    track(rt, [batch_id])
    fetch(rt, batch_id)

    (again,) = [each for each in rt.ledger.batches() if each.parent == batch_id]
    assert rt.ledger.ids(again.id) == {given[0].custom_id}
