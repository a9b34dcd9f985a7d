"""What is done does not grow with what waits: told by the number of Redis' commands."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from lowtide.buffer import Buffer
from lowtide.clock import SystemClock
from lowtide.lane import Lane
from lowtide.request import Request
from lowtide.settings import Settings
from lowtide.timers import Timers

# No timer becomes due meanwhile, however long the machine takes.
LONG = 86_400.0
LANE = Lane("default", "/v1/chat/completions", "gpt-5-mini")


@pytest.fixture
def buffer(redis: Redis) -> Buffer:
    found = Buffer(redis, Settings(max_wait=LONG), SystemClock())
    # The server knows every script from here on.
    found.append(requests(9_000_000, 1))
    found.seal(LANE.key, only_if_due=False)
    Timers(redis, Settings()).claim(100, LONG)
    return found


def requests(first: int, count: int) -> list[Request]:
    return [
        Request(f"{n:036x}.0.0", f"{n:036x}", "t", LANE, b"{}", b"", 1)
        for n in range(first, first + count)
    ]


def commands(redis: Redis, work: Callable[[], object]) -> dict[str, int]:
    redis.config_resetstat()
    work()
    stats = redis.info("commandstats")
    ours = {name: told["calls"] for name, told in stats.items()}
    return {k: v for k, v in ours.items() if "config" not in k and "info" not in k}


def fill(buffer: Buffer, count: int) -> None:
    for at in range(0, count, 500):
        buffer.append(requests(1_000_000 + at, min(500, count - at)))


@pytest.mark.leaves_keys("*")
def test_an_append_costs_the_same_however_many_wait(redis, buffer) -> None:
    fill(buffer, 10)
    few = commands(redis, lambda: buffer.append(requests(0, 20)))
    fill(buffer, 5_000)
    many = commands(redis, lambda: buffer.append(requests(100, 20)))

    assert many == few
    assert few["cmdstat_evalsha"] == 1


@pytest.mark.leaves_keys("*")
def test_a_seal_costs_the_same_however_many_wait(redis, buffer) -> None:
    fill(buffer, 10)
    few = commands(redis, lambda: buffer.seal(LANE.key, only_if_due=False))
    for at in range(0, 5_000, 500):
        buffer.append(requests(at, 500))
    many = commands(redis, lambda: buffer.seal(LANE.key, only_if_due=False))

    assert many == few


@pytest.mark.leaves_keys("*")
def test_a_tick_costs_the_same_however_many_requests_wait(redis, buffer) -> None:
    timers = Timers(redis, Settings())
    fill(buffer, 10)
    few = commands(redis, lambda: timers.claim(100, LONG))
    fill(buffer, 5_000)
    many = commands(redis, lambda: timers.claim(100, LONG))

    assert many == few


@pytest.mark.leaves_keys("*")
def test_requests_of_one_message_are_appended_in_one_round_trip(redis, buffer) -> None:
    seen = commands(redis, lambda: buffer.append(requests(0, 500)))

    assert seen.get("cmdstat_evalsha", 0) + seen.get("cmdstat_eval", 0) <= 2
    assert seen["cmdstat_hset"] <= 2 * 500 + 10
