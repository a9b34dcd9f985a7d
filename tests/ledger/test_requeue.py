"""Requests that are sent again: moved in one step, once."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, event

from lowtide.clock import SimulatedClock
from lowtide.errors import StateError, Superseded
from lowtide.ledger import BatchState, Ledger, RequestState
from lowtide.ledger.transitions import REQUEUES
from tests.ledger.support import LANE, advance, force, leased, record, settle

FIVE = [f"t{n}.0.0" for n in range(5)]
LOCKED = [state for state in BatchState if state not in REQUEUES and state is not BatchState.SEALED]


@pytest.fixture(autouse=True)
def fetched(ledger: Ledger) -> None:
    record(ledger, "b1", FIVE)
    advance(ledger, "b1", BatchState.FETCHED)


def test_requests_move_to_a_new_batch(ledger: Ledger, clock: SimulatedClock) -> None:
    lease = leased(ledger, "b1")
    clock.advance(5)

    new_id = ledger.requeue(lease, FIVE[:2], reason="429 x 2", not_before=77.0)

    assert new_id is not None
    new = ledger.batch(new_id)
    assert new is not None
    assert (new.state, new.parent, new.reason, new.next_at) == ("RECORDED", "b1", "429 x 2", 77.0)
    assert (new.requests, new.tokens, new.bytes, new.fence) == (2, 20, 400, 0)
    assert (new.to_lane(), new.sealed_at, new.recorded_at) == (LANE, clock.now(), clock.now())
    assert ledger.ids(new_id) == set(FIVE[:2])
    assert ledger.ids("b1") == set(FIVE[2:])
    assert (ledger.attempt("b1"), ledger.attempt(new_id)) == (1, 2)


def test_moving_again_moves_nothing(ledger: Ledger) -> None:
    ledger.requeue("b1", FIVE[:2], reason="again")

    assert ledger.requeue("b1", FIVE[:2], reason="again") is None

    assert len(ledger.batches()) == 2


def test_moving_again_into_a_named_batch_names_it_again(ledger: Ledger) -> None:
    assert ledger.requeue("b1", FIVE[:2], reason="again", into="b2") == "b2"
    advance(ledger, "b2", BatchState.SUBMITTED)

    assert ledger.requeue("b1", FIVE[:2], reason="again", into="b2") == "b2"

    assert ledger.ids("b2") == set(FIVE[:2])
    assert ledger.attempt("b2") == 2


def test_a_named_batch_takes_more_while_it_waits(ledger: Ledger) -> None:
    ledger.requeue("b1", FIVE[:2], reason="again", into="b2")

    assert ledger.requeue("b1", FIVE[1:3], reason="again", into="b2") == "b2"

    batch = ledger.batch("b2")
    assert batch is not None
    assert (batch.requests, batch.tokens, batch.bytes) == (3, 30, 600)
    assert {r.attempt for i in FIVE[:3] for r in ledger.task(i.split(".")[0])} == {2}


def test_a_named_batch_that_is_held_or_on_its_way_or_anothers_takes_nothing(ledger: Ledger) -> None:
    record(ledger, "other", ["o1.0.0"])
    ledger.requeue("b1", FIVE[:1], reason="again", into="held")
    leased(ledger, "held")
    ledger.requeue("b1", FIVE[1:2], reason="again", into="sent")
    advance(ledger, "sent", BatchState.UPLOADED)

    for into, why in (
        ("other", "cannot take requests from batch b1"),
        ("sent", "cannot take requests from batch b1"),
        ("b1", "cannot take requests from batch b1"),
        ("held", "is held by w1"),
    ):
        with pytest.raises(StateError, match=f"Batch {into} {why}"):
            ledger.requeue("b1", FIVE, reason="again", into=into)

    assert ledger.ids("b1") == set(FIVE[2:])
    assert ledger.ids("other") == {"o1.0.0"}


def test_all_that_have_no_outcome_move_when_none_is_named(ledger: Ledger) -> None:
    settle(ledger, "b1", FIVE[:2])

    new_id = ledger.requeue("b1", None, reason="expired")

    assert new_id is not None
    assert ledger.ids(new_id) == set(FIVE[2:])
    assert ledger.close_if_done("b1") is True


@pytest.mark.parametrize("outcome", [s for s in RequestState if s is not RequestState.RECORDED])
def test_what_has_an_outcome_or_is_elsewhere_stays(ledger: Ledger, outcome: RequestState) -> None:
    record(ledger, "b2", ["x.0.0"])
    settle(ledger, "b1", FIVE[:1], outcome)

    assert ledger.requeue("b1", [FIVE[0], "x.0.0", "unknown"], reason="again") is None

    assert ledger.ids("b2") == {"x.0.0"}
    assert ledger.task("t0")[0].batch_id == "b1"


def test_what_somebody_delivers_stays_until_the_claim_ends(
    ledger: Ledger, clock: SimulatedClock
) -> None:
    ledger.claim("b1", FIVE[:1], "theirs", 60)
    ledger.claim("b1", FIVE[1:2], "ours", 60)

    ledger.requeue("b1", FIVE, reason="again", into="b2", claim="ours")

    assert ledger.ids("b1") == {FIVE[0]}
    assert ledger.task("t1")[0].claim is None
    clock.advance(60)
    ledger.requeue("b1", FIVE, reason="again", into="b2")
    assert ledger.ids("b2") == set(FIVE)


@pytest.mark.parametrize("state", LOCKED)
def test_nothing_leaves_a_batch_that_the_provider_may_still_answer(
    ledger: Ledger, state: BatchState
) -> None:
    force(ledger, "b1", state)

    with pytest.raises(StateError, match=f"Batch b1 is {state}"):
        ledger.requeue("b1", FIVE, reason="again", into="b2")

    assert ledger.batch("b2") is None
    assert ledger.ids("b1") == set(FIVE)


@pytest.mark.parametrize("state", sorted(REQUEUES))
def test_requests_may_leave_a_batch_that_has_no_file_or_has_ended(
    ledger: Ledger, state: BatchState
) -> None:
    force(ledger, "b1", state)

    assert ledger.requeue("b1", FIVE, reason="again", into="b2") == "b2"


def test_nothing_leaves_a_batch_whose_file_somebody_may_be_writing(
    ledger: Ledger, clock: SimulatedClock
) -> None:
    record(ledger, "b2", ["x.0.0", "y.0.0"])
    lease = leased(ledger, "b2", ttl=60)

    with pytest.raises(StateError, match="Batch b2 is held by w1"):
        ledger.requeue("b2", ["x.0.0"], reason="again")
    assert ledger.requeue(lease, ["x.0.0"], reason="again") is not None, "but its holder may"

    clock.advance(60)
    assert ledger.requeue("b2", ["y.0.0"], reason="again") is not None
    with pytest.raises(Superseded):
        ledger.move(lease, "UPLOADED")


def test_a_late_holder_of_a_batch_that_took_more_is_refused(
    ledger: Ledger, clock: SimulatedClock
) -> None:
    ledger.requeue("b1", FIVE[:2], reason="again", into="b2")
    lease = leased(ledger, "b2", ttl=60)
    clock.advance(60)

    ledger.requeue("b1", FIVE[2:], reason="again", into="b2")

    with pytest.raises(Superseded):
        ledger.move(lease, "UPLOADED")


def test_an_unknown_batch_has_nothing_to_move(ledger: Ledger) -> None:
    with pytest.raises(StateError, match="has no batch b0"):
        ledger.requeue("b0", FIVE, reason="again")


def test_a_crash_at_any_statement_leaves_all_or_nothing(ledger: Ledger) -> None:
    """The connection breaks before the first, second, … statement until there are none left."""
    left = 0

    def crash(conn: Connection, *_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    event.listen(ledger._db.engine, "before_cursor_execute", crash)
    crashes = 0
    while True:
        left = crashes + 1
        try:
            ledger.requeue("b1", FIVE[:2], reason="again", into="b2")
        except KeyboardInterrupt:
            crashes += 1
        else:
            break
        left = 0
        assert ledger.ids("b1") == set(FIVE)
        assert ledger.batch("b2") is None

    left = 0
    assert crashes >= 5
    assert ledger.ids("b2") == set(FIVE[:2])
    assert ledger.ids("b1") == set(FIVE[2:])
