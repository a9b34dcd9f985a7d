"""Single flight: calls that ask the same while one is on its way share one line, paid once."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from msgspec import structs

from lowtide.deliver import deliver
from lowtide.errors import LedgerUnavailable, RequestRejected
from lowtide.escalate import escalate
from lowtide.fetch import fetch
from lowtide.providers import Counts
from lowtide.recording import record
from lowtide.request import Request, digest
from lowtide.revoke import revoke
from lowtide.runtime import Runtime
from lowtide.submit import submit
from tests.pipeline.conftest import Interfering, billed, ended, requests, sealed
from tests.plugins.stack import Simulator


def same(count: int, **body: Any) -> list[Request]:
    """Requests of as many tasks, which all ask the same and share."""
    run = requests(1)[0].task_id
    given = requests(count, user=run, **body)
    return [structs.replace(each, share=digest(each.lane, each.body)) for each in given]


def delivered(rt: Runtime, batch_id: str) -> None:
    """Fetches and delivers an ended batch."""
    after = fetch(rt, batch_id)
    assert after is not None
    for number in range(after.slices):
        deliver(rt, batch_id, number, "w1")


def state_of(rt: Runtime, batch_id: str) -> str:
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    return str(batch.state)


def where(rt: Runtime, given: list[Request]) -> set[str]:
    """The batches in which they wait."""
    return set(rt.ledger.batches_of([each.custom_id for each in given]).values())


@pytest.fixture
def at_provider(rt: Runtime, provider: Interfering) -> tuple[str, list[Request]]:
    """A batch at the provider, and three that ask the same: the first two are in it."""
    given = same(3)
    batch_id = sealed(rt, given[:2])
    submit(rt, batch_id)
    return batch_id, given


def test_those_of_one_buffer_are_one_line_and_each_gets_the_answer(
    rt: Runtime, provider: Interfering, simulator: Simulator, told: dict[str, Any]
) -> None:
    given = [*same(3), *same(1)]
    batch_id = sealed(rt, given)

    submit(rt, batch_id)
    ended(rt, batch_id)
    delivered(rt, batch_id)

    assert sorted(billed(simulator, given)) == [0, 0, 1, 1]
    assert told.keys() == {each.task_id for each in given}
    assert len({str(told[each.task_id]) for each in given[:3]}) == 1
    assert state_of(rt, batch_id) == "DELIVERED"
    tiers = [row.tier for each in given for row in rt.ledger.task(each.task_id)]
    assert sorted(map(str, tiers)) == ["batch", "batch", "shared", "shared"]


def test_one_that_comes_while_the_provider_works_waits_for_its_answer(
    rt: Runtime,
    at_provider: tuple[str, list[Request]],
    simulator: Simulator,
    told: dict[str, Any],
) -> None:
    batch_id, given = at_provider

    rt.accept(given[2:])

    assert where(rt, given) == {batch_id}
    assert rt.buffer.seal(given[2].lane.key, only_if_due=False) is None
    here = rt.where(given[2].task_id)
    assert here is not None
    assert (here.batch_id, here.state) == (batch_id, "SUBMITTED")
    ended(rt, batch_id)
    delivered(rt, batch_id)
    assert sum(billed(simulator, given)) == 1
    assert told.keys() == {each.task_id for each in given}


def test_one_that_was_buffered_before_the_other_was_recorded_joins_it_at_its_record(
    rt: Runtime, provider: Interfering, simulator: Simulator, told: dict[str, Any]
) -> None:
    given = same(2)
    first, second = sealed(rt, given[:1]), sealed(rt, given[1:])
    submit(rt, first)

    assert submit(rt, second) is None

    assert state_of(rt, second) == "CANCELLED"
    assert where(rt, given) == {first}
    here = rt.where(given[1].task_id)
    assert here is not None
    assert here.batch_id == first
    ended(rt, first)
    delivered(rt, first)
    assert sum(billed(simulator, given)) == 1
    assert told.keys() == {each.task_id for each in given}


def test_one_that_joins_between_fetch_and_deliver_is_answered_with_the_others(
    rt: Runtime, at_provider: tuple[str, list[Request]], told: dict[str, Any]
) -> None:
    batch_id, given = at_provider
    ended(rt, batch_id)
    after = fetch(rt, batch_id)
    assert after is not None

    rt.accept(given[2:])
    deliver(rt, batch_id, 0, "w1")

    assert told.keys() == {each.task_id for each in given}
    assert state_of(rt, batch_id) == "DELIVERED"


def test_after_the_answer_a_call_is_a_line_of_its_own(
    rt: Runtime, at_provider: tuple[str, list[Request]], told: dict[str, Any]
) -> None:
    batch_id, given = at_provider
    ended(rt, batch_id)
    delivered(rt, batch_id)

    rt.accept(given[2:])

    later = rt.buffer.seal(given[2].lane.key, only_if_due=False)
    assert later is not None
    submit(rt, later)
    assert where(rt, given) == {later}


def test_a_message_that_comes_again_changes_nothing(
    rt: Runtime, at_provider: tuple[str, list[Request]], told: dict[str, Any]
) -> None:
    batch_id, given = at_provider
    rt.accept(given)
    rt.redis.flushall()
    rt.accept(given)

    assert rt.buffer.lanes() == []
    assert rt.ledger.undelivered(batch_id) == 3


def test_without_the_ledger_they_meet_when_they_are_recorded(
    rt: Runtime, at_provider: tuple[str, list[Request]], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id, given = at_provider

    def away(*_: Any) -> None:
        raise LedgerUnavailable("The ledger is away.")

    with monkeypatch.context() as patch:
        patch.setattr(type(rt.ledger), "join", away)
        rt.accept(given[2:])
    later = rt.buffer.seal(given[2].lane.key, only_if_due=False)
    assert later is not None
    record(rt, later)

    assert where(rt, given) == {batch_id}


@pytest.mark.parametrize("gone", [0, 1])
def test_revoking_one_leaves_the_others(
    rt: Runtime,
    at_provider: tuple[str, list[Request]],
    provider: Interfering,
    simulator: Simulator,
    told: dict[str, Any],
    gone: int,
) -> None:
    batch_id, given = at_provider
    given = sorted(given[:2], key=lambda each: each.custom_id)

    revoke(rt, [given[gone].task_id], "w1")
    assert "cancel" not in provider.calls
    ended(rt, batch_id)
    delivered(rt, batch_id)

    assert told.pop(given[gone].task_id) == "REVOKED"
    assert told.keys() == {given[1 - gone].task_id}
    assert sum(billed(simulator, given)) == 1
    (row,) = rt.ledger.task(given[1 - gone].task_id)
    assert row.tier == "batch"
    assert row.cost is not None
    assert row.cost > 0


def test_when_all_are_revoked_the_batch_is_cancelled(
    rt: Runtime,
    at_provider: tuple[str, list[Request]],
    provider: Interfering,
    told: dict[str, Any],
) -> None:
    _, given = at_provider
    rt.accept(given[2:])

    revoke(rt, [each.task_id for each in given], "w1")

    assert set(told.values()) == {"REVOKED"}
    assert provider.calls.count("cancel") == 1


def test_a_first_one_revoked_before_the_file_is_written_takes_no_other_with_it(
    rt: Runtime, provider: Interfering, simulator: Simulator, told: dict[str, Any]
) -> None:
    given = sorted(same(2), key=lambda each: each.custom_id)
    batch_id = sealed(rt, given)
    record(rt, batch_id)

    revoke(rt, [given[0].task_id], "w1")
    submit(rt, batch_id)
    ended(rt, batch_id)
    delivered(rt, batch_id)

    assert told.pop(given[0].task_id) == "REVOKED"
    assert told.keys() == {given[1].task_id}
    assert sum(billed(simulator, given)) == 1


def test_a_revoke_finds_one_whose_move_nobody_noted(
    rt: Runtime, provider: Interfering, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = same(2)
    first, second = sealed(rt, given[:1]), sealed(rt, given[1:])
    submit(rt, first)
    with monkeypatch.context() as patch:
        patch.setattr("lowtide.sharing.note", lambda *_: None)  # its replica died
        submit(rt, second)

    revoke(rt, [given[1].task_id], "w1")

    assert told == {given[1].task_id: "REVOKED"}


def test_what_fails_for_good_fails_for_all(
    rt: Runtime, provider: Interfering, simulator: Simulator, told: dict[str, Any]
) -> None:
    given = same(2, temperature=99)
    batch_id = sealed(rt, given)

    submit(rt, batch_id)
    ended(rt, batch_id)
    delivered(rt, batch_id)

    assert [type(told[each.task_id]) for each in given] == [RequestRejected] * 2


def test_what_fails_for_now_is_sent_again_as_one_line(
    rt: Runtime,
    at_provider: tuple[str, list[Request]],
    provider: Interfering,
    simulator: Simulator,
    told: dict[str, Any],
) -> None:
    batch_id, given = at_provider

    def expired(remote: Any) -> Any:
        return dataclasses.replace(remote, status="expired", output_file_id=None, counts=Counts(1))

    provider.after["statuses"] = lambda found: {k: expired(v) for k, v in found.items()}
    ended(rt, batch_id)
    del provider.after["statuses"]
    fetch(rt, batch_id)

    (again,) = [each for each in rt.ledger.batches() if each.parent == batch_id]
    assert where(rt, given[:2]) == {again.id}
    assert rt.ledger.attempt(again.id) == 2
    rt.accept(given[2:])
    assert where(rt, given) == {again.id}
    assert len(rt.ledger.names(again.id)) == 1


def test_a_wiped_redis_forgets_nobody(
    rt: Runtime, at_provider: tuple[str, list[Request]], told: dict[str, Any]
) -> None:
    batch_id, given = at_provider
    rt.accept(given[2:])

    rt.redis.flushall()
    ended(rt, batch_id)
    delivered(rt, batch_id)

    assert told.keys() == {each.task_id for each in given}


def test_more_wait_for_a_line_than_a_slice_holds(
    rt: Runtime, provider: Interfering, told: dict[str, Any]
) -> None:
    rt.settings.slice_requests = 3
    given = same(10)
    batch_id = sealed(rt, given)
    submit(rt, batch_id)
    ended(rt, batch_id)

    delivered(rt, batch_id)

    assert told.keys() == {each.task_id for each in given}
    assert sum(1 for each in given if rt.ledger.task(each.task_id)[0].cost) == 1


def test_a_line_larger_than_the_limit_is_not_cut(rt: Runtime, provider: Interfering) -> None:
    rt.settings.enqueued_tokens = 5
    batch_id = sealed(rt, same(3))

    submit(rt, batch_id)

    assert state_of(rt, batch_id) == "SUBMITTED"


def test_calls_that_share_nothing_cost_no_look_for_followers(
    rt: Runtime, provider: Interfering, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = requests(3)
    batch_id = sealed(rt, given)
    submit(rt, batch_id)
    ended(rt, batch_id)

    def asked(*_: Any) -> None:
        raise AssertionError("nobody can follow them")

    monkeypatch.setattr(type(rt.ledger), "followers", asked)
    delivered(rt, batch_id)

    assert told.keys() == {each.task_id for each in given}


def test_those_whose_deadline_is_near_are_asked_for_once_and_one_pays(
    rt: Runtime, provider: Interfering, told: dict[str, Any]
) -> None:
    near, far = rt.clock.now() + 20, rt.clock.now() + 3_600
    rt.settings.escalate_concurrency = 1
    given = [structs.replace(each, deadline=near) for each in same(6)]
    calm = structs.replace(given[0], custom_id="calm.0.0", task_id="calm", deadline=far)
    batch_id = sealed(rt, [*given, calm])
    submit(rt, batch_id)
    rt.ledger.postpone([each.custom_id for each in given], rt.clock.now() - 1)

    escalate(rt, "all", "w1")

    assert told.keys() == {each.task_id for each in given}
    assert len({str(answer) for answer in told.values()}) == 1
    assert provider.calls.count("run") == 1
    rows = [row for each in given for row in rt.ledger.task(each.task_id)]
    assert sorted(str(row.tier) for row in rows) == [*["shared"] * 5, "standard"]
    assert sorted((row.cost or 0.0) > 0 for row in rows) == [*[False] * 5, True]
    assert rt.ledger.batches_of([calm.custom_id]) == {calm.custom_id: batch_id}


def test_a_line_whose_calls_a_faster_service_answered_is_wasted_once(
    rt: Runtime, provider: Interfering, told: dict[str, Any]
) -> None:
    given = [structs.replace(each, deadline=rt.clock.now() + 20) for each in same(3)]
    batch_id = sealed(rt, given)
    submit(rt, batch_id)
    ended(rt, batch_id)
    rt.ledger.postpone([each.custom_id for each in given], rt.clock.now() - 1)
    escalate(rt, "all", "w1")

    fetch(rt, batch_id)

    rows = [row for each in given for row in rt.ledger.task(each.task_id)]
    (price,) = [row.full_price for row in rows if row.full_price]
    assert [row.wasted for row in rows if row.wasted] == [pytest.approx(price / 2)]
