"""Moves of a batch: each legal one, each illegal one, and what they note."""

from __future__ import annotations

import itertools

import pytest

from lowtide.clock import SimulatedClock
from lowtide.errors import StateError
from lowtide.ledger import FINAL, BatchState, Ledger
from lowtide.ledger.transitions import BATCH
from tests.ledger.support import advance, force, leased, record, settle

IN_LEDGER = [state for state in BatchState if state is not BatchState.SEALED]
PAIRS = [(a, b) for a, b in itertools.product(IN_LEDGER, BatchState) if a is not b]
LEGAL = [(a, b) for a, b in PAIRS if b in BATCH[a]]
ILLEGAL = [(a, b) for a, b in PAIRS if b not in BATCH[a]]


@pytest.mark.parametrize(("before", "after"), LEGAL)
def test_legal(ledger: Ledger, before: BatchState, after: BatchState) -> None:
    record(ledger, "b1", ["t1.0.0"])
    if after in FINAL:
        settle(ledger, "b1", ["t1.0.0"])
    force(ledger, "b1", before)
    lease = leased(ledger, "b1")

    assert ledger.move(lease, after).state is after


@pytest.mark.parametrize(("before", "after"), ILLEGAL)
def test_illegal(ledger: Ledger, before: BatchState, after: BatchState) -> None:
    record(ledger, "b1", ["t1.0.0"])
    lease = leased(ledger, "b1")
    force(ledger, "b1", before)

    with pytest.raises(StateError, match=f"Batch b1 is {before} and cannot become {after}"):
        ledger.move(lease, after)

    batch = ledger.batch("b1")
    assert batch is not None
    assert batch.state is before


@pytest.mark.parametrize(("before", "after"), [(a, b) for a, b in LEGAL if b in FINAL])
def test_no_batch_becomes_final_while_a_request_has_no_outcome(
    ledger: Ledger, before: BatchState, after: BatchState
) -> None:
    record(ledger, "b1", ["t1.0.0", "t2.0.0"])
    settle(ledger, "b1", ["t1.0.0"])
    force(ledger, "b1", before)

    with pytest.raises(StateError, match="1 of its requests have no outcome"):
        ledger.move(leased(ledger, "b1"), after)


def test_the_way_of_a_batch_notes_its_times(ledger: Ledger, clock: SimulatedClock) -> None:
    start = clock.now()
    record(ledger, "b1", ["t1.0.0"])
    lease = leased(ledger, "b1", ttl=1000)
    for state in ("UPLOADED", "SUBMITTING", "SUBMITTED", "ENDED", "FETCHED"):
        clock.advance(1)
        ledger.move(lease, state)
    settle(ledger, "b1", ["t1.0.0"])
    clock.advance(1)

    batch = ledger.move(lease, "DELIVERED")

    noted = [batch.uploaded_at, batch.submitting_at, batch.submitted_at]
    noted += [batch.ended_at, batch.fetched_at, batch.delivered_at]
    assert noted == [start + n for n in range(1, 7)]


def test_moving_again_keeps_the_time_and_notes_what_is_given(
    ledger: Ledger, clock: SimulatedClock
) -> None:
    record(ledger, "b1", ["t1.0.0"])
    lease = leased(ledger, "b1")
    first = ledger.move(lease, "UPLOADED", input_file_id="file-1", next_at=5.0, reason="slow")
    clock.advance(10)

    again = ledger.move(lease, "UPLOADED", expires_at=9.0)

    assert again.uploaded_at == first.uploaded_at
    assert (again.input_file_id, again.expires_at) == ("file-1", 9.0)
    assert (again.next_at, again.reason) == (5.0, "slow")


def test_moving_on_clears_why_and_until_when_it_waited(ledger: Ledger) -> None:
    record(ledger, "b1", ["t1.0.0"])
    lease = leased(ledger, "b1")
    ledger.move(lease, "HELD", reason="no quota", next_at=5.0)

    batch = ledger.move(lease, "RECORDED")

    assert (batch.reason, batch.next_at) == (None, None)


def test_a_reason_in_a_providers_words_may_hold_anything(ledger: Ledger) -> None:
    record(ledger, "b1", ["t1.0.0"])
    words = "Invalid value: 'the sea \ud83d\0'" + "x" * 5_000
    lease = leased(ledger, "b1")

    held = ledger.move(lease, "HELD", reason=words)

    assert str(held.reason).startswith("Invalid value: 'the sea ?'xx")
    ledger.move(lease, "RECORDED")
    moved = ledger.requeue(lease, None, reason=words)
    assert moved is not None
    again = ledger.batch(moved)
    assert again is not None
    assert again.reason == held.reason


def test_a_given_time_goes_before_the_clock(ledger: Ledger) -> None:
    record(ledger, "b1", ["t1.0.0"])

    batch = ledger.move(leased(ledger, "b1"), "UPLOADED", uploaded_at=3.0)

    assert batch.uploaded_at == 3.0


def test_a_batch_is_found_by_the_providers_id(ledger: Ledger) -> None:
    record(ledger, "b1", ["t1.0.0"])
    advance(ledger, "b1", BatchState.SUBMITTING)
    ledger.move(leased(ledger, "b1"), "SUBMITTED", provider_batch_id="batch_x")

    found = ledger.by_provider_id("batch_x")

    assert found is not None
    assert found.id == "b1"
    assert ledger.by_provider_id("batch_y") is None


def test_unknown_states_and_fields_are_refused(ledger: Ledger) -> None:
    record(ledger, "b1", ["t1.0.0"])
    lease = leased(ledger, "b1")

    with pytest.raises(ValueError, match="not a valid BatchState"):
        ledger.move(lease, "SENT")
    with pytest.raises(TypeError, match="no field fence"):
        ledger.move(lease, "UPLOADED", fence=9)  # type: ignore[call-arg]


def test_close_if_done_waits_for_the_last_outcome(ledger: Ledger, clock: SimulatedClock) -> None:
    record(ledger, "b1", ["t1.0.0", "t2.0.0"])
    advance(ledger, "b1", BatchState.FETCHED)
    settle(ledger, "b1", ["t1.0.0"])
    assert ledger.close_if_done("b1") is False
    settle(ledger, "b1", ["t2.0.0"])

    assert ledger.close_if_done("b1") is True
    assert ledger.close_if_done("b1") is True

    batch = ledger.batch("b1")
    assert batch is not None
    assert (batch.state, batch.delivered_at) == ("DELIVERED", clock.now())


@pytest.mark.parametrize("state", [s for s in IN_LEDGER if s not in ("FETCHED", "DELIVERED")])
def test_close_if_done_leaves_a_batch_that_is_not_fetched(
    ledger: Ledger, state: BatchState
) -> None:
    record(ledger, "b1", ["t1.0.0"])
    settle(ledger, "b1", ["t1.0.0"])
    force(ledger, "b1", state)

    assert ledger.close_if_done("b1") is False
    assert ledger.close_if_done("b0") is False
