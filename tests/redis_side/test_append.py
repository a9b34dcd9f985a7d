"""The exact contents of Redis before and after append.lua."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from redis import Redis

from lowtide.buffer import Buffer
from lowtide.clock import SimulatedClock
from lowtide.held import Appended
from lowtide.request import Request, unpack
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

exact = pytest.mark.usefixtures("no_nonce")
MakeBuffer = Callable[..., Buffer]


@exact
def test_the_first_request_opens_a_buffer(redis: Redis, buffer: Buffer) -> None:
    assert contents(redis) == {}

    said = buffer.append([ask("aa", size=120, tokens=7)])

    assert said == Appended(1, 0, ())
    assert contents(redis) == {
        "lanes": {LANE.key},
        HEAD: {
            "batch": batch_id(1),
            "requests": "1",
            "bytes": "120",
            "tokens": "7",
            "opened_at": f"{START:.6f}",
            "due": f"{START + 60:.6f}",
        },
        LINES: {"aa.0.0": (120, 7)},
        "timers": {SEAL: START + 60},
        "task:aa!": {"0.0": f"{batch_id(1)} 0 "},
        f"batch:{batch_id(1)}!": {"lane": LANE.key, "state": "BUFFERED"},
    }


@exact
def test_a_later_request_joins_and_leaves_the_timer(
    redis: Redis, buffer: Buffer, clock: SimulatedClock
) -> None:
    buffer.append([ask("aa")])
    before = contents(redis)
    clock.advance(10)

    buffer.append([ask("bb", tokens=5)])

    after = contents(redis)
    assert after[HEAD] == {**before[HEAD], "requests": "2", "bytes": "200", "tokens": "6"}
    assert after["timers"] == before["timers"]
    assert after["task:bb!"] == {"0.0": f"{batch_id(1)} 1 "}


def test_the_same_requests_again_change_nothing(redis: Redis, buffer: Buffer) -> None:
    buffer.append(asks(0, 3))
    before = contents(redis)

    assert buffer.append(asks(0, 3)) == Appended(0, 3, ())

    assert contents(redis) == before


def test_the_same_request_twice_in_one_append_counts_once(redis: Redis, buffer: Buffer) -> None:
    assert buffer.append([ask("aa"), ask("aa")]) == Appended(1, 1, ())
    assert contents(redis)[HEAD]["requests"] == "1"


def test_a_request_is_refused_after_its_batch_was_sealed_and_dropped(
    redis: Redis, buffer: Buffer
) -> None:
    buffer.append([ask("aa")])
    sealed = buffer.seal(LANE.key, only_if_due=False)
    assert sealed is not None
    assert buffer.append([ask("aa")]) == Appended(0, 1, ())
    buffer.drop(sealed)

    assert buffer.append([ask("aa")]) == Appended(0, 1, ())

    assert LINES not in contents(redis)


def test_a_request_is_refused_by_its_line_when_its_task_entry_is_gone(
    redis: Redis, buffer: Buffer
) -> None:
    buffer.append([ask("aa")])
    buffer.forget(["aa"])

    assert buffer.append([ask("aa")]) == Appended(0, 1, ())


@exact
def test_the_next_step_of_a_task_is_another_request(redis: Redis, buffer: Buffer) -> None:
    buffer.append([ask("aa"), ask("aa", step=1)])

    assert contents(redis)["task:aa!"] == {"0.0": f"{batch_id(1)} 0 ", "0.1": f"{batch_id(1)} 1 "}


@exact
def test_a_hashed_custom_id_is_noted_with_its_task(redis: Redis, buffer: Buffer) -> None:
    request = Request("0f.0.2", "a-long-name", "tasks.t", LANE, b"{}", b"", 1)

    buffer.append([request])

    assert contents(redis)["task:a-long-name!"] == {"0.2": f"{batch_id(1)} 0 0f.0.2"}


@exact
def test_the_count_threshold_seals_when_it_is_reached(
    redis: Redis, make_buffer: MakeBuffer
) -> None:
    buffer = make_buffer(max_requests=2)

    said = buffer.append(asks(0, 5))

    assert said == Appended(5, 0, (batch_id(1), batch_id(2)))
    now = contents(redis)
    assert now["sealed"] == {
        batch_id(1): f"{LANE.key} {START:.6f} 2 200 2",
        batch_id(2): f"{LANE.key} {START:.6f} 2 200 2",
    }
    assert now[f"batch:{batch_id(1)}:lines"] == {"00.0.0": (100, 1), "01.0.0": (100, 1)}
    assert now[f"batch:{batch_id(2)}:lines"] == {"02.0.0": (100, 1), "03.0.0": (100, 1)}
    assert now[f"batch:{batch_id(2)}!"] == {"lane": LANE.key, "state": "SEALED", "requests": "2"}
    assert now[LINES] == {"04.0.0": (100, 1)}
    assert now["timers"] == {
        f"submit:{batch_id(1)}": START,
        f"submit:{batch_id(2)}": START,
        SEAL: START + 60,
    }
    assert now["task:03!"] == {"0.0": f"{batch_id(2)} 1 "}


@exact
def test_a_buffer_that_is_sealed_full_leaves_no_open_one(
    redis: Redis, make_buffer: MakeBuffer
) -> None:
    make_buffer(max_requests=2).append(asks(0, 2))

    now = contents(redis)
    assert HEAD not in now
    assert LINES not in now
    assert now["timers"] == {f"submit:{batch_id(1)}": START}


@pytest.mark.parametrize(
    ("limit", "sizes", "batches"),
    [
        ({"max_bytes": 250}, [100, 100, 100], [["00", "01"], ["02"]]),  # would be passed: before
        ({"max_bytes": 200}, [100, 100, 100], [["00", "01"], ["02"]]),  # is reached: after
        ({"max_bytes": 150}, [300, 100, 100], [["00"], ["01"], ["02"]]),  # alone over it: alone
    ],
)
def test_the_byte_threshold(
    make_buffer: MakeBuffer, limit: dict[str, int], sizes: list[int], batches: list[list[str]]
) -> None:
    buffer = make_buffer(**limit)
    for number, size in enumerate(sizes):
        buffer.append([ask(f"{number:02}", size=size)])
    buffer.seal(LANE.key, only_if_due=False)

    assert _batches(buffer) == batches


def test_the_token_threshold(make_buffer: MakeBuffer) -> None:
    buffer = make_buffer(max_tokens=100)
    buffer.append([ask("00", tokens=60), ask("01", tokens=60), ask("02", tokens=40), ask("03")])
    buffer.seal(LANE.key, only_if_due=False)

    assert _batches(buffer) == [["00"], ["01", "02"], ["03"]]


@exact
def test_a_threshold_that_was_lowered_seals_before_the_next_request(
    make_buffer: MakeBuffer,
) -> None:
    make_buffer().append(asks(0, 5))

    buffer = make_buffer(max_requests=3)
    assert buffer.append(asks(5, 6)).sealed == (batch_id(1),)
    assert _batches(buffer) == [["00", "01", "02", "03", "04"]]


@pytest.mark.parametrize("limit", [{"max_requests": 2}, {"max_bytes": 200}, {"max_tokens": 2}])
def test_a_threshold_that_is_reached_seals_at_once(
    make_buffer: MakeBuffer, limit: dict[str, int]
) -> None:
    assert len(make_buffer(**limit).append(asks(0, 2)).sealed) == 1


def test_lanes_do_not_touch_each_other(redis: Redis, make_buffer: MakeBuffer) -> None:
    buffer = make_buffer(max_requests=2)

    said = buffer.append([ask("aa"), ask("bb", lane=OTHER), ask("cc"), ask("dd", lane=OTHER)])

    assert said.added == 4
    assert sorted(batch.lane for batch in buffer.sealed()) == sorted((LANE.key, OTHER.key))
    assert contents(redis)["lanes"] == {LANE.key, OTHER.key}


@exact
def test_thresholds_of_a_lane_go_before_the_general_ones(make_buffer: MakeBuffer) -> None:
    from lowtide.settings import LaneOverride

    buffer = make_buffer(lanes={"other": LaneOverride(max_requests=1)})

    assert buffer.append([ask("aa"), ask("bb", lane=OTHER)]).sealed == (batch_id(1),)


@pytest.mark.parametrize(
    ("deadline", "due"),
    [(START + 20, START + 7.5), (START + 600, START + 60), (START - 5, START)],
    ids=["earlier", "later", "past"],
)
def test_a_deadline_pulls_the_timer_in(
    redis: Redis, buffer: Buffer, deadline: float, due: float
) -> None:
    buffer.append([ask("aa")])

    buffer.append([ask("bb", deadline=deadline)])

    now = contents(redis)
    assert now["timers"] == {SEAL: due}
    assert now[HEAD]["due"] == f"{due:.6f}"


@pytest.mark.parametrize(
    ("wants", "due"),
    [
        ({"max_wait": 10}, START + 10),
        ({"max_wait": 0}, START),
        ({"max_wait": 600}, START + 60),
        ({"max_wait": 5, "deadline": START + 20}, START + 5),
        ({"max_wait": 30, "deadline": START + 20}, START + 7.5),
    ],
    ids=["sooner", "urgent", "longer than the lane", "before a deadline", "after a deadline"],
)
def test_an_urgent_call_pulls_the_timer_in(
    redis: Redis, buffer: Buffer, wants: dict[str, Any], due: float
) -> None:
    buffer.append([ask("aa")])

    buffer.append([replace(ask("bb"), **wants)])

    assert contents(redis)["timers"] == {SEAL: due}
    # It is no deadline: what is stored of the call has none.
    batch = buffer.seal(LANE.key, only_if_due=False)
    assert batch is not None
    stored = {name: unpack(name, LANE, blob) for page in buffer.lines(batch) for name, blob in page}
    assert stored["bb.0.0"].deadline == wants.get("deadline")


def test_an_append_leaves_a_leased_timer_alone(
    redis: Redis, buffer: Buffer, clock: SimulatedClock
) -> None:
    buffer.append([ask("aa")])
    clock.advance(61)
    redis.zadd("{lowtide}:timers", {SEAL: START + 121})  # as a claim does

    buffer.append([ask("bb")])

    assert contents(redis)["timers"] == {SEAL: START + 121}


def test_an_append_brings_back_a_timer_and_a_lane_that_were_lost(
    redis: Redis, buffer: Buffer
) -> None:
    buffer.append([ask("aa")])
    before = contents(redis)
    redis.delete("{lowtide}:timers", "{lowtide}:lanes")

    buffer.append([ask("bb")])

    now = contents(redis)
    assert now["timers"] == before["timers"]
    assert now["lanes"] == before["lanes"]


@pytest.mark.parametrize(("count", "size", "runs"), [(1203, 100, 3), (9, 1_000_000, 2)])
def test_a_large_append_is_cut_into_runs_of_the_script(
    redis: Redis, buffer: Buffer, count: int, size: int, runs: int
) -> None:
    noise = random.Random(1)  # so that bodies stay large when they are packed
    requests = [
        replace(
            ask(f"t{n}", size=size), body=b'"' + noise.randbytes(size // 2).hex().encode() + b'"'
        )
        for n in range(count)
    ]
    buffer.append([ask("known")])
    redis.config_resetstat()

    assert buffer.append(requests) == Appended(count, 0, ())

    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] == runs
    assert buffer.lanes()[0].requests == count + 1


def test_nothing_to_append(redis: Redis, buffer: Buffer) -> None:
    assert buffer.append([]) == Appended(0, 0, ())
    assert contents(redis) == {}


def _batches(buffer: Buffer) -> list[list[str]]:
    return sorted(
        sorted(name[:2] for page in buffer.lines(batch.batch_id) for name, _ in page)
        for batch in buffer.sealed()
    )
