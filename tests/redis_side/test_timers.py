"""The exact contents of the timers before and after each verb, and the leases of claim.lua."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from lowtide.clock import SimulatedClock
from lowtide.timers import Due, Timers, Waiting
from tests.redis_side.conftest import settings
from tests.redis_side.support import START, contents


def test_due_timers_are_claimed_for_a_lease(
    redis: Redis, timers: Timers, clock: SimulatedClock
) -> None:
    timers.arm("poll", "b2", START + 5)
    timers.arm("seal", "default:/v1/x:m", START + 1)
    timers.arm("poll", "b3", START + 50)
    clock.advance(5)

    assert timers.claim(10, 60) == [
        Due("seal", "default:/v1/x:m", START + 1),
        Due("poll", "b2", START + 5),
    ]

    assert contents(redis) == {
        "timers": {
            "seal:default:/v1/x:m": START + 65,
            "poll:b2": START + 65,
            "poll:b3": START + 50,
        }
    }
    assert timers.claim(10, 60) == []


def test_a_lease_runs_out(timers: Timers, clock: SimulatedClock) -> None:
    timers.arm("poll", "b1", START)
    assert timers.claim(10, 60) == [Due("poll", "b1", START)]

    clock.advance(59.5)
    assert timers.claim(10, 60) == []
    clock.advance(0.5)
    assert timers.claim(10, 60) == [Due("poll", "b1", START + 60)]


def test_claim_takes_the_longest_due_first(timers: Timers) -> None:
    for number in range(5):
        timers.arm("poll", f"b{number}", START - number)

    assert [due.id for due in timers.claim(2, 60)] == ["b4", "b3"]
    assert [due.id for due in timers.claim(9, 60)] == ["b2", "b1", "b0"]


def test_arm_sets_earlier_and_later(timers: Timers) -> None:
    assert timers.arm("poll", "b1", START + 5)
    assert not timers.arm("poll", "b1", START + 9)
    assert timers.due_at("poll", "b1") == START + 9
    timers.arm("poll", "b1", START + 1)
    assert timers.due_at("poll", "b1") == START + 1


def test_arm_if_absent_leaves_what_is_there(timers: Timers) -> None:
    assert timers.arm("poll", "b1", START + 5, if_absent=True)
    assert not timers.arm("poll", "b1", START + 1, if_absent=True)
    assert timers.due_at("poll", "b1") == START + 5


def test_pull_in_only_lowers(timers: Timers) -> None:
    assert timers.pull_in("poll", "b1", START + 5)
    assert not timers.pull_in("poll", "b1", START + 9)
    assert timers.due_at("poll", "b1") == START + 5
    assert timers.pull_in("poll", "b1", START + 2)
    assert timers.due_at("poll", "b1") == START + 2


def test_disarm(timers: Timers) -> None:
    timers.arm("poll", "b1", START)

    assert timers.disarm("poll", "b1")
    assert not timers.disarm("poll", "b1")
    assert timers.due_at("poll", "b1") is None


def test_waiting_counts(timers: Timers, clock: SimulatedClock) -> None:
    assert timers.waiting() == Waiting(0, 0, 0.0)
    timers.arm("poll", "b1", START - 30)
    timers.arm("poll", "b2", START)
    timers.arm("poll", "b3", START + 1)

    assert timers.waiting() == Waiting(3, 2, 30.0)


def test_claim_goes_by_the_servers_time(redis: Redis) -> None:
    timers = Timers(redis, settings())
    seconds, _ = redis.time()
    timers.arm("poll", "past", seconds)
    timers.arm("poll", "future", seconds + 3600)

    assert [due.id for due in timers.claim(10, 600)] == ["past"]

    again = timers.due_at("poll", "past")
    assert again == pytest.approx(seconds + 600, abs=30)
    assert timers.waiting() == Waiting(2, 0, 0.0)


def test_each_due_timer_goes_to_one_of_many_replicas(redis: Redis) -> None:
    timers = Timers(redis, settings())
    for number in range(400):
        timers.arm("poll", f"b{number}", 1.0)

    def replica(_: int) -> list[str]:
        return [due.id for _ in range(20) for due in timers.claim(7, 600)]

    with ThreadPoolExecutor(8) as pool:
        claimed = [name for part in pool.map(replica, range(8)) for name in part]

    assert sorted(claimed) == sorted(f"b{number}" for number in range(400))


def test_a_full_redis_still_gives_out_timers(redis: Redis, timers: Timers) -> None:
    timers.arm("poll", "b1", START)
    redis.config_set("maxmemory", "1")
    try:
        assert timers.claim(10, 60) == [Due("poll", "b1", START)]
    finally:
        redis.config_set("maxmemory", "0")
    assert timers.due_at("poll", "b1") == START + 60
