"""Claims and outcomes: one deliverer a request, one outcome a request."""

from __future__ import annotations

import pytest

from lowtide.clock import SimulatedClock
from lowtide.errors import StateError
from lowtide.ledger import ClaimedRow, Ledger, Outcome, RequestState
from lowtide.ledger.transitions import OUTCOMES, REQUEST
from tests.ledger.support import advance, record, settle

IDS = ["t0.0.0", "t1.0.0", "t2.0.0"]


@pytest.fixture(autouse=True)
def batch(ledger: Ledger) -> None:
    record(ledger, "b1", IDS)


def claimed(ledger: Ledger, owner: str, ids: list[str] = IDS, batch_id: str = "b1") -> list[str]:
    return [row.custom_id for row in ledger.claim(batch_id, ids, owner, 60)]


def test_a_claim_gives_what_is_needed_to_deliver(ledger: Ledger) -> None:
    assert ledger.claim("b1", IDS[:1], "d1", 60) == [ClaimedRow("t0.0.0", b"t0.0.0", 1)]


def test_the_attempt_counts_how_often_it_was_sent(ledger: Ledger) -> None:
    ledger.requeue("b1", IDS[:1], reason="again", into="b2")

    assert ledger.claim("b2", IDS[:1], "d1", 60)[0].attempt == 2


def test_what_is_claimed_is_not_claimed_again_by_anybody(ledger: Ledger) -> None:
    assert claimed(ledger, "d1", IDS[:2]) == IDS[:2]

    assert claimed(ledger, "d2") == IDS[2:]
    assert claimed(ledger, "d1") == []


def test_a_claim_that_ran_out_goes_to_the_next_and_the_late_one_is_refused(
    ledger: Ledger, clock: SimulatedClock
) -> None:
    claimed(ledger, "d1")
    clock.advance(60)
    assert claimed(ledger, "d2", IDS[:1]) == IDS[:1]

    assert ledger.settle("d1", [Outcome(i, RequestState.FAILED) for i in IDS]) == 2
    assert ledger.settle("d2", [Outcome(i, RequestState.DELIVERED) for i in IDS]) == 1

    states = {r.custom_id: r.state for n in range(3) for r in ledger.task(f"t{n}")}
    assert states == {IDS[0]: "DELIVERED", IDS[1]: "FAILED", IDS[2]: "FAILED"}


def test_a_claim_is_for_the_batch_that_was_fetched(ledger: Ledger) -> None:
    ledger.requeue("b1", IDS[:1], reason="again", into="b2")

    assert claimed(ledger, "d1") == IDS[1:]
    assert claimed(ledger, "d1", batch_id="b2") == IDS[:1]


@pytest.mark.parametrize("outcome", sorted(OUTCOMES))
def test_what_has_an_outcome_is_not_claimed(ledger: Ledger, outcome: RequestState) -> None:
    settle(ledger, "b1", IDS[:1], outcome)

    assert claimed(ledger, "d1") == IDS[1:]


def test_unknown_and_no_ids_claim_nothing(ledger: Ledger) -> None:
    assert claimed(ledger, "d1", ["x", "'; DROP TABLE lowtide_requests; --", '"]']) == []
    assert claimed(ledger, "d1", []) == []


def test_claims_given_back_are_free_at_once(ledger: Ledger) -> None:
    claimed(ledger, "d1", IDS[:2])
    claimed(ledger, "d2", IDS[2:])

    assert ledger.unclaim(IDS, "d1") == 2
    assert ledger.unclaim(IDS, "d1") == 0

    assert claimed(ledger, "d3") == IDS[:2]


def test_an_outcome_is_written_with_all_that_is_known(
    ledger: Ledger, clock: SimulatedClock
) -> None:
    claimed(ledger, "d1")
    clock.advance(3)
    outcome = Outcome(
        IDS[0], RequestState.DELIVERED, 200, None, None, "req_1", 100, 50, 30, 20, 0.5, 1.0
    )
    failure = Outcome(IDS[1], RequestState.FAILED, 400, "bad_value", "Not so — 🙂", "req_2")

    assert ledger.settle("d1", [outcome, failure]) == 2

    [row] = ledger.task("t0")
    assert (row.state, row.status_code, row.provider_request_id) == ("DELIVERED", 200, "req_1")
    assert (row.input_tokens, row.cached_tokens) == (100, 50)
    assert (row.output_tokens, row.reasoning_tokens) == (30, 20)
    assert (row.cost, row.full_price, row.done_at) == (0.5, 1.0, clock.now())
    assert (row.claim, row.claim_until, row.blob) == (None, None, b"t0.0.0")
    [row] = ledger.task("t1")
    assert (row.status_code, row.error_code, row.error_message) == (400, "bad_value", "Not so — 🙂")
    assert (row.cost, row.input_tokens) == (None, None)


@pytest.mark.parametrize("first", sorted(OUTCOMES))
@pytest.mark.parametrize("second", sorted(OUTCOMES))
def test_the_first_outcome_stays(ledger: Ledger, first: RequestState, second: RequestState) -> None:
    assert settle(ledger, "b1", IDS[:1], first, cost=1.0) == 1

    assert settle(ledger, "b1", IDS[:1], second, cost=2.0) == 0

    [row] = ledger.task("t0")
    assert (row.state, row.cost) == (first, 1.0)
    assert second not in REQUEST[first]


def test_recorded_is_no_outcome(ledger: Ledger) -> None:
    claimed(ledger, "d1")
    outcomes = [Outcome(IDS[0], RequestState.DELIVERED), Outcome(IDS[1], RequestState.RECORDED)]

    with pytest.raises(StateError, match=r"t1\.0\.0 cannot be settled as RECORDED"):
        ledger.settle("d1", outcomes)

    assert ledger.undelivered("b1") == 3


def test_nothing_is_settled_without_a_claim(ledger: Ledger) -> None:
    assert ledger.settle("d1", [Outcome(i, RequestState.DELIVERED) for i in IDS]) == 0
    assert ledger.settle("d1", []) == 0

    assert (ledger.undelivered("b1"), ledger.ids("b1")) == (3, set(IDS))


def test_whatever_a_provider_says_can_be_written(ledger: Ledger) -> None:
    claimed(ledger, "d1")
    outcomes = [
        Outcome(
            IDS[0], RequestState.FAILED, 10**400, "a\0b", "\ud800 and \0" + "x" * 10_000, "\udfff"
        ),
        Outcome(IDS[1], RequestState.DELIVERED, -(10**30), input_tokens=2**80, cost=1e300),
        Outcome(IDS[2], RequestState.DELIVERED, 200.0, output_tokens=7, reasoning_tokens=True),  # type: ignore[arg-type]
    ]

    assert ledger.settle("d1", outcomes) == 3

    [row] = ledger.task("t0")
    assert (row.error_code, row.provider_request_id) == ("ab", "?")
    assert (row.error_message or "").startswith("? and x")
    assert len(row.error_message or "") < 2_001
    assert ledger.task("t2")[0].output_tokens == 7


def test_of_two_outcomes_for_one_request_the_first_counts(ledger: Ledger) -> None:
    claimed(ledger, "d1")
    twice = [Outcome(IDS[0], RequestState.FAILED), Outcome(IDS[0], RequestState.DELIVERED)]

    assert ledger.settle("d1", twice) == 1

    assert ledger.task("t0")[0].state is RequestState.FAILED


@pytest.mark.parametrize("price", [float("nan"), float("inf")])
def test_a_price_that_is_no_number_is_unknown(ledger: Ledger, price: float) -> None:
    settle(ledger, "b1", IDS[:1], cost=price, full_price=price)
    settle(ledger, "b1", IDS[1:2], cost=1.0, full_price=2.0)

    money = ledger.totals().money
    assert (money.cost, money.saving, money.unpriced) == (1.0, 1.0, 1)


def test_hundreds_at_once(ledger: Ledger) -> None:
    ids = [f"m{n}.0.0" for n in range(1200)]
    record(ledger, "b2", ids)

    assert len(claimed(ledger, "d1", ids, "b2")) == 1200
    outcomes = [Outcome(i, RequestState.DELIVERED, output_tokens=n) for n, i in enumerate(ids)]
    assert ledger.settle("d1", outcomes) == 1200

    assert ledger.undelivered("b2") == 0
    assert ledger.task("m777")[0].output_tokens == 777
    assert ledger.undelivered("b1") == 3


def test_a_batch_with_claims_is_not_done(ledger: Ledger) -> None:
    advance(ledger, "b1", "FETCHED")  # type: ignore[arg-type]
    claimed(ledger, "d1")

    assert ledger.close_if_done("b1") is False
