"""Who is next of those that are held, on both databases."""

from __future__ import annotations

from dataclasses import replace

from lowtide.clock import SimulatedClock
from lowtide.ledger import BatchState, Ledger
from tests.ledger.support import LANE, advance, leased, new_batch, new_request

QUEUE = "tokens:default:gpt-5-mini"


def batch_of(ledger: Ledger, batch_id: str, share: str, sealed_at: float = 1.0) -> None:
    batch = replace(new_batch(batch_id, lane=replace(LANE, share=share)), sealed_at=sealed_at)
    ledger.record(batch, [new_request(f"{batch_id}t.0.0")])


def hold(ledger: Ledger, batch_id: str, queue: str | None = QUEUE) -> None:
    lease = leased(ledger, batch_id)
    ledger.move(lease, BatchState.HELD, reason="no room", waits_for=queue)
    ledger.release(lease)


def next_ones(ledger: Ledger) -> list[str]:
    return [turn.batch_id for turn in ledger.turns(QUEUE)]


def test_each_lane_has_one_turn_by_its_oldest_batch(ledger: Ledger) -> None:
    for number in range(3):
        batch_of(ledger, f"a{number}", "acme", sealed_at=10 - number)
        hold(ledger, f"a{number}")
    batch_of(ledger, "g", "globex", sealed_at=20)
    hold(ledger, "g")

    assert next_ones(ledger) == ["a2", "g"]


def test_who_has_less_at_the_provider_then_who_was_served_longest_ago(
    ledger: Ledger, clock: SimulatedClock
) -> None:
    for share, state in {"a": "ENDED", "b": "ENDED", "c": "SUBMITTED"}.items():
        batch_of(ledger, f"{share}-before", share)
        advance(ledger, f"{share}-before", BatchState(state))
        clock.advance(10)
    for number, share in enumerate(["c", "b", "a", "d"]):
        batch_of(ledger, share, share, sealed_at=number)
        hold(ledger, share)

    assert next_ones(ledger) == ["d", "a", "b", "c"]


def test_only_those_that_wait_for_the_same_are_told(ledger: Ledger) -> None:
    for name, queue in {"mine": QUEUE, "other": "creations:default", "paused": None}.items():
        batch_of(ledger, name, name)
        hold(ledger, name, queue)
    batch_of(ledger, "free", "free")

    assert next_ones(ledger) == ["mine"]


def test_a_lane_without_a_held_batch_is_told_of_when_asked(ledger: Ledger) -> None:
    batch_of(ledger, "a", "acme")
    hold(ledger, "a")

    lane = replace(LANE, share="globex").key
    assert {turn.lane: turn.batch_id for turn in ledger.turns(QUEUE, lane)} == {
        replace(LANE, share="acme").key: "a",
        lane: "",
    }


def test_who_goes_on_waits_no_more(ledger: Ledger) -> None:
    batch_of(ledger, "a", "acme")
    hold(ledger, "a")

    ledger.move(leased(ledger, "a"), BatchState.RECORDED)

    batch = ledger.batch("a")
    assert batch is not None
    assert batch.waits_for is None
    assert ledger.turns(QUEUE) == []
