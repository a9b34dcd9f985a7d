from __future__ import annotations

from redis import Redis

from lowtide.slices import Slices
from tests.redis_side.conftest import settings
from tests.redis_side.support import contents


def test_the_slices_of_a_batch_are_kept_for_their_time(redis: Redis) -> None:
    slices = Slices(redis, settings())

    slices.put("b1", 0, b"\x00answers", ttl=60)
    slices.put("b1", 10, b"more", ttl=90)

    assert contents(redis) == {"batch:b1:slices!": {"0": "\x00answers", "10": "more"}}
    assert 80_000 < int(redis.pttl("{lowtide}:batch:b1:slices")) <= 90_000
    assert slices.get("b1", 0) == b"\x00answers"
    assert slices.numbers("b1") == [0, 10]


def test_who_deletes_a_slice_hears_how_many_are_left(redis: Redis) -> None:
    slices = Slices(redis, settings())
    for number in range(3):
        slices.put("b1", number, b"x", ttl=90)

    assert slices.delete("b1", 0) == slices.delete("b1", 7) == 2
    assert slices.get("b1", 0) is None
    assert slices.numbers("b1") == [1, 2]
    assert [slices.delete("b1", number) for number in (1, 2)] == [1, 0]
    assert contents(redis) == {}


def test_the_slices_of_a_batch_are_cleared(redis: Redis) -> None:
    slices = Slices(redis, settings())
    for number in range(3):
        slices.put("b1", number, b"x", ttl=90)

    slices.clear("b1")
    assert contents(redis) == {}
