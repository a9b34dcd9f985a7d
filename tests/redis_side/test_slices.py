from __future__ import annotations

from redis import Redis

from lowtide.slices import Slices
from tests.redis_side.conftest import settings
from tests.redis_side.support import contents


def test_a_slice_is_kept_for_its_time(redis: Redis) -> None:
    slices = Slices(redis, settings())

    slices.put("b1", 0, b"\x00answers", ttl=90)

    assert contents(redis) == {"batch:b1:slice:0!": b"\x00answers"}
    assert 80_000 < int(redis.pttl("{lowtide}:batch:b1:slice:0")) <= 90_000
    assert slices.get("b1", 0) == b"\x00answers"


def test_slices_are_deleted_together(redis: Redis) -> None:
    slices = Slices(redis, settings())
    for number in range(3):
        slices.put("b1", number, b"x", ttl=0.0001 if number == 2 else 90)

    assert slices.delete("b1", 0, 1, 7) == 2
    assert slices.delete("b1") == 0
    assert slices.get("b1", 0) is None
