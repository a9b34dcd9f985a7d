from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from lowtide.buffer import Buffer
from lowtide.held import Where
from lowtide.request import Request
from tests.redis_side.support import LANE, ask, asks, batch_id, contents

pytestmark = pytest.mark.usefixtures("no_nonce")


def test_a_task_is_followed_from_buffer_to_provider(buffer: Buffer) -> None:
    buffer.append(asks(0, 3))
    first = Where("02.0.0", batch_id(1), 2, 0, 0, LANE.key, "BUFFERED")
    assert _plain(buffer, "02") == first

    buffer.seal(LANE.key, only_if_due=False)
    sealed = Where("02.0.0", batch_id(1), 2, 0, 0, LANE.key, "SEALED", 3)
    assert _plain(buffer, "02") == sealed

    buffer.set_summary(
        batch_id(1), state="SUBMITTED", provider_batch_id="batch_1", expected_end=12.5, reason="x"
    )
    where = buffer.where(["02"])[0]
    assert where is not None
    assert (where.state, where.provider_batch_id, where.expected_end) == (
        "SUBMITTED",
        "batch_1",
        12.5,
    )
    assert where.summary["reason"] == "x"


def test_the_latest_request_counts(buffer: Buffer) -> None:
    tries = [(0, 0), (0, 9), (0, 10), (1, 0), (10, 1)]
    for retries, step in tries:
        name = f"t.{retries}.{step}"
        buffer.append([Request(name, "t", "tasks.t", LANE, b"{}", b"", 1)])
        where = buffer.where(["t"])[0]
        assert where is not None
        assert (where.custom_id, where.retries, where.step) == (name, retries, step)


def test_unknown_and_forgotten_tasks_are_nowhere(redis: Redis, buffer: Buffer) -> None:
    buffer.append(asks(0, 3))

    buffer.forget(["00", "01"])

    assert [where is None for where in buffer.where(["00", "02", "nobody"])] == [True, False, True]
    assert buffer.where([]) == []
    buffer.forget([])


def test_a_hashed_custom_id_is_told_in_full(buffer: Buffer) -> None:
    buffer.append([Request("0f.0.2", "long", "tasks.t", LANE, b"{}", b"", 1)])

    where = buffer.where(["long"])[0]
    assert where is not None
    assert (where.custom_id, where.retries, where.step) == ("0f.0.2", 0, 2)


def test_without_a_summary_the_batch_is_still_told(redis: Redis, buffer: Buffer) -> None:
    buffer.append([ask("aa")])
    redis.delete("{lowtide}:batch:" + batch_id(1))

    assert buffer.where(["aa"]) == [Where("aa.0.0", batch_id(1), 0, 0, 0)]


def test_a_summary_field_can_be_taken_back(redis: Redis, buffer: Buffer) -> None:
    buffer.set_summary("b1", state="HELD", reason="no quota")
    buffer.set_summary("b1", state="SUBMITTED", reason=None)

    assert contents(redis) == {"batch:b1!": {"state": "SUBMITTED"}}


def test_requests_move_to_another_batch(buffer: Buffer) -> None:
    buffer.append([*asks(0, 2), Request("0f.0.2", "long", "tasks.t", LANE, b"{}", b"", 1)])

    buffer.moved("b9", [("01", "01.0.0"), ("long", "0f.0.2")])

    found = [
        where and (where.custom_id, where.batch_id, where.position)
        for where in buffer.where(["00", "01", "long"])
    ]
    assert found == [("00.0.0", batch_id(1), 0), ("01.0.0", "b9", 0), ("0f.0.2", "b9", 1)]


def test_where_takes_two_round_trips(
    redis: Redis, buffer: Buffer, trips: Callable[[], int]
) -> None:
    buffer.append(asks(0, 50))
    before = trips()

    buffer.where([f"{number:02}" for number in range(50)])

    assert trips() - before == 2


def _plain(buffer: Buffer, task_id: str) -> Where:
    from dataclasses import replace

    where = buffer.where([task_id])[0]
    assert where is not None
    return replace(where, summary={})
