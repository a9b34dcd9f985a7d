"""What is spent and set aside under a cap, and that two batches never take the same room."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from lowtide.clock import SimulatedClock
from lowtide.errors import Superseded
from lowtide.lane import Lane
from lowtide.ledger import BatchState, Cap, Ledger, Load, NewRequest
from tests.ledger.support import LANE, advance, leased, new_batch, record, settle

ALL = Cap("", 3.5)
TASK = "tasks.summarize"
OTHER = Lane("eu", "/v1/responses", "gpt-5")


def reserved(ledger: Ledger, batch_id: str, usd: float, *caps: Cap, task: str = TASK) -> bool:
    lease = leased(ledger, batch_id)
    over = ledger.reserve(lease, {task: usd}, caps or (ALL,), 0.0)
    ledger.release(lease)
    return not over


def test_batches_on_their_way_take_the_room_until_they_are_closed(ledger: Ledger) -> None:
    for n in range(4):
        record(ledger, f"b{n}", [f"r{n}.0.0"])
    assert [reserved(ledger, f"b{n}", 1.0) for n in range(4)] == [True, True, True, False]
    assert ledger.spent([ALL], 0.0) == {ALL: 3.0}

    advance(ledger, "b0", BatchState.FETCHED)
    settle(ledger, "b0", ["r0.0.0"], cost=0.25)
    assert ledger.spent([ALL], 0.0) == {ALL: 3.0}
    ledger.close_if_done("b0")

    assert ledger.spent([ALL], 0.0) == {ALL: 2.25}
    assert reserved(ledger, "b3", 1.0)


def test_what_was_dearer_than_expected_counts_whole(ledger: Ledger) -> None:
    record(ledger, "b0", ["r0.0.0", "r1.0.0"])
    reserved(ledger, "b0", 1.0)
    advance(ledger, "b0", BatchState.FETCHED)

    settle(ledger, "b0", ["r0.0.0"], cost=3.0)

    assert ledger.spent([ALL], 0.0) == {ALL: 3.0}


def test_the_same_batch_may_ask_again(ledger: Ledger) -> None:
    record(ledger, "b0", ["r0.0.0"])

    assert reserved(ledger, "b0", 3.0)
    assert reserved(ledger, "b0", 3.0)
    assert ledger.spent([ALL], 0.0) == {ALL: 3.0}


def test_a_held_batch_gives_its_room_back(ledger: Ledger) -> None:
    record(ledger, "b0", ["r0.0.0"])
    reserved(ledger, "b0", 3.0)
    ledger.move(leased(ledger, "b0"), BatchState.HELD, reason="paused", estimate=None)

    assert ledger.spent([ALL], 0.0) == {ALL: 0.0}


def test_what_was_booked_before_the_day_does_not_count(
    ledger: Ledger, clock: SimulatedClock
) -> None:
    record(ledger, "b0", ["r0.0.0", "r1.0.0"])
    advance(ledger, "b0", BatchState.FETCHED)
    settle(ledger, "b0", ["r0.0.0"], cost=3.0)
    clock.advance(100)
    today = clock.now()
    settle(ledger, "b0", ["r1.0.0"], cost=1.0)
    ledger.close_if_done("b0")

    assert ledger.spent([ALL], today) == {ALL: 1.0}
    clock.advance(100)
    assert ledger.spent([ALL], clock.now()) == {ALL: 0.0}


def test_each_cap_counts_what_it_is_for(ledger: Ledger) -> None:
    record(ledger, "b0", ["r0.0.0"])
    record(ledger, "b1", ["r1.0.0"], lane=OTHER)
    reserved(ledger, "b0", 1.0, task="a")
    reserved(ledger, "b1", 2.0, task="b")
    caps = {
        "account": Cap("", 9, account="eu"),
        "model": Cap("", 9, model=LANE.model),
        "lane": Cap("", 9, lane=OTHER.key),
        "task": Cap("", 9, task="a"),
    }

    spent = ledger.spent(list(caps.values()), 0.0)

    assert {name: spent[cap] for name, cap in caps.items()} == {
        "account": 2.0,
        "model": 1.0,
        "lane": 2.0,
        "task": 1.0,
    }


def test_batches_that_ask_at_once_never_take_the_same_room(ledger: Ledger) -> None:
    names = [f"b{n}" for n in range(8)]
    for name in names:
        record(ledger, name, [f"{name}r.0.0"])
    leases = [leased(ledger, name) for name in names]

    with ThreadPoolExecutor(8) as pool:
        over = list(pool.map(lambda lease: ledger.reserve(lease, {"t": 1.0}, [ALL], 0.0), leases))

    assert [bool(each) for each in over].count(False) == 3
    assert ledger.spent([ALL], 0.0) == {ALL: 3.0}


def test_who_lost_its_batch_sets_nothing_aside(ledger: Ledger, clock: SimulatedClock) -> None:
    record(ledger, "b0", ["r0.0.0"])
    late = leased(ledger, "b0", ttl=1.0)
    clock.advance(2)
    leased(ledger, "b0", "w2")

    with pytest.raises(Superseded):
        ledger.reserve(late, {"t": 1.0}, [ALL], 0.0)

    assert ledger.spent([ALL], 0.0) == {ALL: 0.0}


def test_what_a_batch_holds_of_each_task(ledger: Ledger) -> None:
    rows = [
        NewRequest("r0.0.0", "r0", "a", b"", 10),
        NewRequest("r1.0.0", "r1", "a", b"", 20),
        NewRequest("r2.0.0", "r2", "b", b"", 5),
    ]
    ledger.record(new_batch("b0"), rows)
    advance(ledger, "b0", BatchState.FETCHED)

    assert ledger.loads("b0") == {"a": Load(2, 30), "b": Load(1, 5)}
    assert sorted(ledger.of_tasks("b0", ["a"])) == ["r0.0.0", "r1.0.0"]
    settle(ledger, "b0", ["r0.0.0"], output_tokens=100)
    settle(ledger, "b0", ["r1.0.0"], output_tokens=200)
    settle(ledger, "b0", ["r2.0.0"])
    ledger.close_if_done("b0")
    assert ledger.loads("b0") == {}
    assert ledger.written(LANE.model) == {"a": 150.0}
