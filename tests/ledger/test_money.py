"""Usage and money, by task, lane, batch and day; turnarounds; purging."""

from __future__ import annotations

from typing import Any

import pytest

from lowtide.clock import SimulatedClock
from lowtide.lane import Lane
from lowtide.ledger import BatchState, Ledger, RequestState, Turnaround
from tests.ledger.support import LANE, advance, new_batch, new_request, record, settle

DAY = 86_400.0
OTHER = Lane("acme", "/v1/embeddings", "text-embedding-3-small")


@pytest.fixture
def booked(ledger: Ledger, clock: SimulatedClock) -> Ledger:
    """Three outcomes on one day, one an hour before midnight, one just after, one open."""
    clock.advance(DAY - clock.now() % DAY - 3600)
    ledger.record(
        new_batch("b1"),
        [
            new_request("a.0.0", task="one"),
            new_request("b.0.0", task="two"),
            new_request("c.0.0", task="two"),
        ],
    )
    ledger.record(new_batch("b2", lane=OTHER), [new_request("d.0.0", task="two")])
    ledger.record(new_batch("b3", lane=OTHER), [new_request("e.0.0", task="three")])
    known: dict[str, Any] = {
        "input_tokens": 100,
        "cached_tokens": 10,
        "output_tokens": 20,
        "reasoning_tokens": 5,
    }
    settle(ledger, "b1", ["a.0.0"], cost=1.0, full_price=2.0, **known)
    settle(ledger, "b1", ["b.0.0"], RequestState.CONTINUED, **known)
    settle(ledger, "b1", ["c.0.0"], RequestState.FAILED)
    clock.advance(3600)
    settle(ledger, "b2", ["d.0.0"], cost=0.25, full_price=0.5, input_tokens=4)
    return ledger


def test_by_task(booked: Ledger) -> None:
    one, two = booked.costs("task")

    assert (one.key, one.requests, one.answered, one.failed) == ("one", 1, 1, 0)
    assert (one.cost, one.full_price, one.saving) == (1.0, 2.0, 1.0)
    assert (one.input_tokens, one.cached_tokens, one.output_tokens, one.reasoning_tokens) == (
        100,
        10,
        20,
        5,
    )
    assert (two.key, two.requests, two.answered, two.failed, two.unpriced) == ("two", 3, 2, 1, 1)
    assert (two.cost, two.full_price, two.saving, two.input_tokens) == (0.25, 0.5, 0.25, 104)


def test_by_lane_batch_and_day(booked: Ledger, clock: SimulatedClock) -> None:
    assert {row.key: row.cost for row in booked.costs("lane")} == {LANE.key: 1.0, OTHER.key: 0.25}
    assert {row.key: row.requests for row in booked.costs("batch")} == {"b1": 3, "b2": 1}
    assert {row.key: row.requests for row in booked.costs("day")} == {
        "2023-11-14": 3,
        "2023-11-15": 1,
    }


def test_in_a_span_of_time(booked: Ledger, clock: SimulatedClock) -> None:
    midnight = clock.now()

    assert [row.key for row in booked.costs("batch", since=midnight)] == ["b2"]
    assert [row.key for row in booked.costs("batch", until=midnight)] == ["b1"]
    assert booked.costs("batch", since=midnight + 1) == []


def test_totals(booked: Ledger) -> None:
    totals = booked.totals()

    assert totals.batches == {BatchState.RECORDED: 3}
    assert totals.requests == {"RECORDED": 1, "DELIVERED": 2, "CONTINUED": 1, "FAILED": 1}
    assert (totals.money.cost, totals.money.saving, totals.money.unpriced) == (1.25, 1.25, 1)


def test_an_empty_ledger_has_no_totals(ledger: Ledger) -> None:
    totals = ledger.totals()

    assert (totals.batches, totals.requests, totals.money.cost) == ({}, {}, 0.0)
    assert ledger.costs("day") == []


def test_turnarounds_are_those_that_ended_newest_first(
    ledger: Ledger, clock: SimulatedClock
) -> None:
    start = clock.now()
    for name, lane in (("b1", LANE), ("b2", OTHER), ("b3", LANE)):
        record(ledger, name, [f"{name}.0.0", f"{name}x.0.0"], lane=lane)
        advance(ledger, name, BatchState.SUBMITTED)
        clock.advance(100)
        lease = ledger.lease(name, "w1", 60)
        assert lease is not None
        ledger.move(lease, "ENDED")
    record(ledger, "b4", ["b4.0.0"])
    advance(ledger, "b4", BatchState.SUBMITTED)

    assert ledger.turnarounds(lane=LANE.key) == [
        Turnaround(LANE.key, start + 200, start + 300, 2),
        Turnaround(LANE.key, start, start + 100, 2),
    ]
    assert [t.lane for t in ledger.turnarounds(limit=2)] == [LANE.key, OTHER.key]
    assert len(ledger.turnarounds(since=start + 200)) == 2
