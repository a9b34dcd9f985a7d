"""What was lost of the indexes comes back, as long as the lines are there."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from redis import Redis

from lowtide import keys
from lowtide.buffer import Buffer
from lowtide.clock import SimulatedClock
from tests.redis_side.support import (
    HEAD,
    LANE,
    LINES,
    OTHER,
    SEAL,
    START,
    ask,
    asks,
    batch_id,
    contents,
)

MakeBuffer = Callable[..., Buffer]
INDEXES = ("timers", "lanes", "sealed")
B1, B2 = batch_id(1, START + 1), batch_id(2, START + 1)
SETS = [s for n in (1, 2, 3) for s in itertools.combinations(INDEXES, n)]


@pytest.fixture
def full(make_buffer: MakeBuffer, clock: SimulatedClock, no_nonce: None) -> Buffer:
    """Two sealed batches and an open buffer in one lane, an open buffer in another."""
    buffer = make_buffer(max_requests=2)
    buffer.append([ask("xx", lane=OTHER, tokens=9)])
    clock.advance(1)
    buffer.append(asks(0, 5))
    return buffer


def test_nothing_to_repair(redis: Redis, full: Buffer) -> None:
    before = contents(redis)

    assert full.rebuild(scan=True) == 0

    assert contents(redis) == before


@pytest.mark.parametrize("lost", SETS, ids="+".join)
def test_every_index_is_restored(redis: Redis, full: Buffer, lost: tuple[str, ...]) -> None:
    before = contents(redis)
    entries = sum(len(before[name]) for name in lost)
    redis.delete(*("{lowtide}:" + name for name in lost))

    assert full.rebuild(scan=True) == entries

    assert contents(redis) == before
    assert full.rebuild(scan=True) == 0


def test_a_lane_with_only_a_sealed_batch_is_restored(redis: Redis, buffer: Buffer) -> None:
    buffer.append([ask("aa")])
    buffer.seal(LANE.key, only_if_due=False)
    before = contents(redis)
    redis.delete("{lowtide}:lanes", "{lowtide}:sealed", "{lowtide}:timers")

    buffer.rebuild(scan=True)

    assert contents(redis) == before


def test_lost_timers_come_back_without_a_scan(redis: Redis, full: Buffer) -> None:
    before = contents(redis)
    redis.delete("{lowtide}:timers")

    assert full.rebuild(scan=False) == 4

    assert contents(redis) == before


def test_the_first_sweep_of_an_hour_scans(redis: Redis, full: Buffer) -> None:
    redis.delete("{lowtide}:sealed")
    assert full.rebuild() == 2
    assert 3500 < int(redis.ttl(keys.scanned("lowtide"))) <= 3600

    redis.delete("{lowtide}:sealed")
    assert full.rebuild() == 0
    redis.delete(keys.scanned("lowtide"))
    assert full.rebuild() == 2


def test_armed_timers_are_left_as_they_are(redis: Redis, full: Buffer) -> None:
    redis.zadd("{lowtide}:timers", {SEAL: START + 500, f"submit:{B1}": START + 600})
    before = contents(redis)

    assert full.rebuild(scan=True) == 0

    assert contents(redis) == before


@pytest.mark.parametrize(
    "repair",
    [
        lambda buffer: buffer.rebuild(scan=True),
        lambda buffer: buffer.append([ask("99")]),
        lambda buffer: buffer.append([ask("00")]),
        lambda buffer: buffer.remove(LANE.key, ["nobody.0.0"]),
    ],
    ids=["rebuild", "append", "refused append", "remove"],
)
def test_lines_outlive_their_header(
    redis: Redis, buffer: Buffer, clock: SimulatedClock, repair: Callable[[Buffer], object]
) -> None:
    buffer.append([ask("00", size=100, tokens=2), ask("01", size=200, tokens=3)])
    redis.delete("{lowtide}:" + HEAD)

    repair(buffer)

    (lane,) = buffer.lanes()
    extra = contents(redis)[LINES].keys() - {"00.0.0", "01.0.0"}
    assert (lane.requests, lane.size, lane.tokens) == (
        2 + len(extra),
        300 + 100 * len(extra),
        5 + len(extra),
    )
    assert lane.due == START + 60  # as its timer says
    clock.advance(60)
    sealed = buffer.seal(LANE.key, only_if_due=True)
    assert sealed == lane.batch_id
    assert sum(len(page) for page in buffer.lines(sealed or "")) == lane.requests


def test_sealing_without_a_header_keeps_the_lines(redis: Redis, buffer: Buffer) -> None:
    buffer.append([ask("00", tokens=4), ask("01")])
    redis.delete("{lowtide}:" + HEAD, "{lowtide}:lanes", "{lowtide}:timers")

    sealed = buffer.seal(LANE.key, only_if_due=False)

    (batch,) = buffer.sealed()
    assert (batch.batch_id, batch.requests, batch.size, batch.tokens) == (sealed, 2, 200, 5)


def test_a_damaged_header_keeps_its_id(redis: Redis, buffer: Buffer) -> None:
    buffer.append(asks(0, 3))
    before = contents(redis)
    redis.hdel("{lowtide}:" + HEAD, "requests", "due")

    buffer.rebuild(scan=False)

    assert contents(redis) == before


def test_lines_without_header_and_timer_are_due_at_once(
    redis: Redis, buffer: Buffer, clock: SimulatedClock
) -> None:
    buffer.append(asks(0, 3))
    redis.delete("{lowtide}:" + HEAD, "{lowtide}:timers", "{lowtide}:lanes")
    clock.advance(7)

    assert buffer.rebuild(scan=True) == 3

    assert contents(redis)["timers"] == {SEAL: START + 7}
    assert buffer.seal(LANE.key, only_if_due=True) is not None


def test_a_header_without_its_lines_is_forgotten(redis: Redis, buffer: Buffer) -> None:
    buffer.append(asks(0, 3))
    redis.delete("{lowtide}:" + LINES)

    assert buffer.rebuild(scan=True) == 1
    assert HEAD not in contents(redis)

    buffer.append([ask("99")])
    assert buffer.lanes()[0].requests == 1


def test_lines_that_came_after_a_loss_are_kept(redis: Redis, buffer: Buffer) -> None:
    buffer.append(asks(0, 3))
    redis.delete("{lowtide}:" + LINES)

    buffer.append([ask("99")])

    (lane,) = buffer.lanes()
    assert (lane.requests, lane.size) == (1, 100)
    assert contents(redis)[LINES] == {"99.0.0": (100, 1)}


def test_a_batch_whose_lines_are_gone_is_reported(
    redis: Redis, full: Buffer, caplog: pytest.LogCaptureFixture
) -> None:
    redis.delete(f"{{lowtide}}:batch:{B1}:lines", "{lowtide}:timers")

    full.rebuild(scan=False)

    assert f"Batch {B1} is sealed, but its requests are gone" in caplog.text
    assert f"submit:{B1}" in contents(redis)["timers"]  # so that it is closed


@pytest.mark.leaves_keys("{lowtide}:batch:*:lines")
def test_a_batch_of_an_unknown_lane_is_kept_and_reported(
    redis: Redis, full: Buffer, caplog: pytest.LogCaptureFixture
) -> None:
    redis.delete("{lowtide}:sealed", "{lowtide}:batch:" + B1)

    full.rebuild(scan=True)

    assert f"Batch {B1} is in no index" in caplog.text
    assert [batch.batch_id for batch in full.sealed()] == [B2]
    assert f"batch:{B1}:lines" in contents(redis)


def test_a_batch_that_is_dropped_meanwhile_is_no_loss(
    redis: Redis, full: Buffer, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    from lowtide.repair import _restore_call
    from lowtide.scripts import run

    full.drop(B1)
    before = contents(redis)

    assert run(redis, [_restore_call("lowtide", clock, B1)]) == [0]

    assert contents(redis) == before


def test_a_task_named_like_lines_is_no_lane(redis: Redis, buffer: Buffer) -> None:
    buffer.append([ask("lane:x:lines")])

    assert buffer.rebuild(scan=True) == 0
