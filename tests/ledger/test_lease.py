"""Leases: one holder at a time, and what a late one writes is refused."""

from __future__ import annotations

import pytest

from lowtide.clock import SimulatedClock
from lowtide.errors import StateError, Superseded
from lowtide.ledger import BatchState, Due, Ledger
from tests.ledger.support import advance, leased, record


@pytest.fixture(autouse=True)
def batch(ledger: Ledger) -> None:
    record(ledger, "b1", ["t1.0.0"])


def test_a_lease_has_a_fence_that_grows(ledger: Ledger) -> None:
    first = leased(ledger, "b1")
    ledger.release(first)

    second = leased(ledger, "b1")

    assert (first.fence, second.fence) == (1, 2)


@pytest.mark.parametrize("owner", ["w1", "w2"])
def test_nobody_gets_a_lease_while_one_runs(
    ledger: Ledger, clock: SimulatedClock, owner: str
) -> None:
    leased(ledger, "b1", "w1", ttl=60)
    clock.advance(59.9)

    assert ledger.lease("b1", owner, 60) is None


def test_a_lease_that_ran_out_goes_to_the_next_and_the_late_one_is_refused(
    ledger: Ledger, clock: SimulatedClock
) -> None:
    late = leased(ledger, "b1", "w1", ttl=60)
    clock.advance(60)
    new = leased(ledger, "b1", "w2")

    for write in (
        lambda: ledger.move(late, BatchState.UPLOADED),
        lambda: ledger.move(late, BatchState.RECORDED, reason="late"),
        lambda: ledger.renew(late, 60),
        lambda: ledger.requeue(late, None, reason="late"),
    ):
        with pytest.raises(Superseded, match="Another replica took over batch b1"):
            write()

    assert ledger.release(late) is False
    after = ledger.batch("b1")
    assert after is not None
    assert (after.state, after.reason, after.lease_owner) == ("RECORDED", None, "w2")
    assert ledger.move(new, BatchState.UPLOADED).state == "UPLOADED"


def test_a_lease_that_ran_out_still_writes_while_nobody_took_over(
    ledger: Ledger, clock: SimulatedClock
) -> None:
    lease = leased(ledger, "b1", ttl=1)
    clock.advance(100)

    assert ledger.move(lease, BatchState.UPLOADED).state == "UPLOADED"


def test_a_lease_given_back_writes_nothing_more(ledger: Ledger) -> None:
    lease = leased(ledger, "b1")

    assert ledger.release(lease) is True
    assert ledger.release(lease) is False
    with pytest.raises(Superseded):
        ledger.move(lease, BatchState.UPLOADED)


def test_a_renewed_lease_runs_longer(ledger: Ledger, clock: SimulatedClock) -> None:
    lease = leased(ledger, "b1", ttl=60)
    clock.advance(50)

    renewed = ledger.renew(lease, 60)

    assert (renewed.fence, renewed.until) == (lease.fence, clock.now() + 60)
    clock.advance(50)
    assert ledger.lease("b1", "w2", 60) is None
    clock.advance(10)
    assert ledger.lease("b1", "w2", 60) is not None


def test_there_is_no_lease_of_what_is_not_there_or_final(ledger: Ledger) -> None:
    lease = leased(ledger, "b1")
    ledger.requeue(lease, None, reason="test")
    ledger.move(lease, BatchState.CANCELLED)
    ledger.release(lease)

    assert ledger.lease("b1", "w1", 60) is None
    assert ledger.lease("b0", "w1", 60) is None


def test_due_shows_what_is_open_and_not_held(ledger: Ledger, clock: SimulatedClock) -> None:
    for name in ("b2", "b3", "b4"):
        record(ledger, name, [f"{name}.0.0"])
    ledger.move(leased(ledger, "b2", ttl=1), BatchState.RECORDED, next_at=7.0)
    clock.advance(1)
    leased(ledger, "b3")
    advance(ledger, "b4", BatchState.FETCHED)
    lease = leased(ledger, "b4")
    ledger.requeue(lease, None, reason="test", into="b5", not_before=9.0)
    ledger.move(lease, BatchState.DELIVERED)

    assert ledger.due() == [
        Due("b1", BatchState.RECORDED, None),
        Due("b2", BatchState.RECORDED, 7.0),
        Due("b5", BatchState.RECORDED, 9.0),
    ]
    assert ledger.due(limit=1) == [Due("b1", BatchState.RECORDED, None)]


def test_all_that_is_due_is_found_some_at_a_time(ledger: Ledger) -> None:
    for n in range(2, 6):
        record(ledger, f"b{n}", [f"b{n}.0.0"])
    ledger.move_free("b3", "w1", BatchState.RECORDED, next_at=9.0)
    ledger.move_free("b4", "w1", BatchState.RECORDED, next_at=9.0)

    found, last = list[str](), None
    while some := ledger.due(limit=2, after=last):
        found += [each.batch_id for each in some]
        last = some[-1]

    assert found == ["b1", "b2", "b5", "b3", "b4"]


def test_a_batch_that_is_not_there_cannot_move(ledger: Ledger) -> None:
    lease = leased(ledger, "b1")

    from dataclasses import replace

    with pytest.raises(StateError, match="has no batch b0"):
        ledger.move(replace(lease, batch_id="b0"), BatchState.UPLOADED)


def test_a_batch_is_moved_without_being_held_afterwards(ledger: Ledger) -> None:
    late = leased(ledger, "b1")
    ledger.release(late)

    moved = ledger.move_free("b1", "w2", BatchState.UPLOADED, reason="noted")

    assert moved is not None
    assert (moved.state, moved.reason, moved.lease_owner) == ("UPLOADED", "noted", None)
    # It was leased meanwhile: who had the lease before writes nothing any more.
    with pytest.raises(Superseded):
        ledger.move(late, BatchState.SUBMITTING)
    assert leased(ledger, "b1").fence == late.fence + 2


def test_a_batch_that_another_holds_is_not_moved(ledger: Ledger, clock: SimulatedClock) -> None:
    leased(ledger, "b1", "w1", ttl=60)

    assert ledger.move_free("b1", "w2", BatchState.UPLOADED) is None
    clock.advance(60)
    assert ledger.move_free("b1", "w2", BatchState.UPLOADED) is not None


def test_a_move_that_is_not_allowed_leaves_no_lease_behind(ledger: Ledger) -> None:
    with pytest.raises(StateError):
        ledger.move_free("b1", "w1", BatchState.FETCHED)

    assert leased(ledger, "b1").fence == 1


def test_a_lease_goes_back_with_the_last_move(ledger: Ledger) -> None:
    first = leased(ledger, "b1")

    ledger.move(first, BatchState.UPLOADED, release=True)

    assert ledger.release(first) is False
    assert leased(ledger, "b1").fence == 2
