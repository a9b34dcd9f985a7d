"""The exact contents of Redis before and after seal.lua and remove.lua, and what follows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from lowtide.buffer import Buffer
from lowtide.clock import SimulatedClock
from lowtide.held import SealedBatch
from tests.redis_side.support import HEAD, LANE, LINES, SEAL, START, ask, asks, batch_id, contents

exact = pytest.mark.usefixtures("no_nonce")
SUBMIT = f"submit:{batch_id(1)}"
MakeBuffer = Callable[..., Buffer]


@exact
def test_sealing_renames_the_lines_and_moves_the_timer(
    redis: Redis, buffer: Buffer, clock: SimulatedClock
) -> None:
    buffer.append(asks(0, 3, tokens=4))
    before = contents(redis)
    clock.advance(5)

    assert buffer.seal(LANE.key, only_if_due=False) == batch_id(1)

    assert contents(redis) == {
        **{name: value for name, value in before.items() if name.startswith("task:")},
        "lanes": {LANE.key},
        "sealed": {batch_id(1): f"{LANE.key} {START + 5:.6f} 3 300 12"},
        f"batch:{batch_id(1)}:lines": before[LINES],
        f"batch:{batch_id(1)}!": {"lane": LANE.key, "state": "SEALED", "requests": "3"},
        "timers": {SUBMIT: START + 5},
    }


def test_only_one_seal_gets_the_batch(buffer: Buffer) -> None:
    buffer.append([ask("aa")])

    assert buffer.seal(LANE.key, only_if_due=False) is not None
    assert buffer.seal(LANE.key, only_if_due=False) is None
    assert len(buffer.sealed()) == 1


def test_a_buffer_that_is_not_due_stays_and_gets_its_timer_back(
    redis: Redis, buffer: Buffer, clock: SimulatedClock
) -> None:
    buffer.append([ask("aa")])
    before = contents(redis)
    redis.zadd("{lowtide}:timers", {SEAL: START + 500})
    clock.advance(59)

    assert buffer.seal(LANE.key, only_if_due=True) is None
    assert contents(redis) == before

    clock.advance(1)
    assert buffer.seal(LANE.key, only_if_due=True) is not None


def test_sealing_an_empty_lane_removes_its_timer(redis: Redis, buffer: Buffer) -> None:
    redis.zadd("{lowtide}:timers", {SEAL: START})

    assert buffer.seal(LANE.key, only_if_due=True) is None

    assert contents(redis) == {}


def test_sealing_forgets_a_header_without_lines(redis: Redis, buffer: Buffer) -> None:
    buffer.append([ask("aa")])
    redis.delete("{lowtide}:" + LINES)

    assert buffer.seal(LANE.key, only_if_due=False) is None

    assert HEAD not in contents(redis)


@exact
def test_dropping_leaves_summary_tasks_and_timer(redis: Redis, buffer: Buffer) -> None:
    buffer.append([ask("aa")])
    buffer.seal(LANE.key, only_if_due=False)

    buffer.drop(batch_id(1))
    buffer.drop(batch_id(1))

    assert set(contents(redis)) == {"lanes", "timers", "task:aa!", f"batch:{batch_id(1)}!"}
    assert buffer.sealed() == []
    assert buffer.sealed_batch(batch_id(1)) is None


@exact
def test_sealed_batches_are_told_oldest_first(buffer: Buffer, clock: SimulatedClock) -> None:
    buffer.append([ask("aa", tokens=3)])
    buffer.seal(LANE.key, only_if_due=False)
    clock.advance(1)
    buffer.append(asks(0, 2))
    buffer.seal(LANE.key, only_if_due=False)

    assert buffer.sealed() == [
        SealedBatch(batch_id(1), LANE.key, START, 1, 100, 3),
        SealedBatch(batch_id(1, START + 1), LANE.key, START + 1, 2, 200, 2),
    ]
    assert buffer.sealed_batch(batch_id(1)) == buffer.sealed()[0]


def test_lines_come_in_pages_by_their_ids_each_once(make_buffer: MakeBuffer) -> None:
    from lowtide.request import unpack

    buffer = make_buffer()
    requests = [ask(f"t{number}", size=200) for number in range(2500)]
    buffer.append(requests)
    sealed = buffer.seal(LANE.key, only_if_due=False)
    assert sealed is not None

    pages = list(buffer.lines(sealed, count=100))

    assert max(len(page) for page in pages) < 250
    got = [unpack(name, LANE, blob) for page in pages for name, blob in page]
    assert got == sorted(requests, key=lambda r: r.custom_id)


def test_pages_of_large_lines_are_short(make_buffer: MakeBuffer) -> None:
    buffer = make_buffer()
    buffer.append([ask(f"t{number}", size=50_000) for number in range(600)])
    sealed = buffer.seal(LANE.key, only_if_due=False)
    assert sealed is not None

    assert max(len(page) for page in buffer.lines(sealed)) <= 160


def test_lines_of_an_unknown_batch_are_none(buffer: Buffer) -> None:
    assert list(buffer.lines("b0")) == []


@exact
def test_removing_keeps_the_counts_right(redis: Redis, buffer: Buffer) -> None:
    buffer.append([ask("aa", size=100, tokens=1), ask("bb", size=150, tokens=20), ask("cc")])
    before = contents(redis)

    removed = buffer.remove(LANE.key, ["bb.0.0", "nobody.0.0", "bb.0.0"])

    assert removed == ["bb.0.0"]
    assert contents(redis) == {
        **before,
        HEAD: {**before[HEAD], "requests": "2", "bytes": "200", "tokens": "2"},
        LINES: {"aa.0.0": (100, 1), "cc.0.0": (100, 1)},
    }


def test_a_removed_request_does_not_come_back(redis: Redis, buffer: Buffer) -> None:
    buffer.append(asks(0, 2))
    buffer.remove(LANE.key, ["00.0.0"])

    assert buffer.append([ask("00")]).refused == 1


def test_removing_the_last_request_closes_the_buffer(redis: Redis, buffer: Buffer) -> None:
    buffer.append(asks(0, 2))

    assert sorted(buffer.remove(LANE.key, ["00.0.0", "01.0.0"])) == ["00.0.0", "01.0.0"]

    assert set(contents(redis)) == {"lanes", "task:00!", "task:01!"}
    assert buffer.seal(LANE.key, only_if_due=False) is None


def test_a_sealed_request_cannot_be_removed(buffer: Buffer) -> None:
    buffer.append([ask("aa")])
    buffer.seal(LANE.key, only_if_due=False)

    assert buffer.remove(LANE.key, ["aa.0.0"]) == []


def test_removing_nothing(buffer: Buffer) -> None:
    assert buffer.remove(LANE.key, []) == []


def test_lanes_tell_their_fill(buffer: Buffer, clock: SimulatedClock) -> None:
    buffer.append([ask("aa", size=120, tokens=5)])

    (lane,) = buffer.lanes()
    assert (lane.lane, lane.requests, lane.size, lane.tokens) == (LANE.key, 1, 120, 5)
    assert (lane.opened_at, lane.due) == (START, START + 60)
    assert lane.thresholds.max_requests == 50_000

    buffer.seal(LANE.key, only_if_due=False)
    (lane,) = buffer.lanes()
    assert (lane.batch_id, lane.requests, lane.opened_at) == (None, 0, None)
