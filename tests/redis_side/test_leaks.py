"""The check that every test with a Redis ends with: it must be able to fail."""

from __future__ import annotations

import pytest
from redis import Redis

from lowtide.buffer import Buffer
from tests.plugins.redis import leaked_keys
from tests.redis_side.support import LANE, OTHER, asks

STRAY = [
    "{lowtide}:forgotten",
    "{lowtide}:batch:b1",
    "{lowtide}:batch:b1:lines",
    f"{{lowtide}}:lane:{OTHER.key}",
    f"{{lowtide}}:lane:{OTHER.key}:lines",
    "{lowtide}:task:t",
    "{other}:x",
]


@pytest.mark.leaves_keys(*STRAY)
def test_stray_keys_are_found(redis: Redis, buffer: Buffer) -> None:
    buffer.append(asks(0, 3))
    sealed = buffer.seal(LANE.key, only_if_due=False)
    buffer.append(asks(3, 6))
    buffer.set_summary("b2", state="HELD")
    assert sealed is not None
    assert leaked_keys(redis, []) == []

    for key in STRAY:
        redis.set(key, "x")
    redis.set("{lowtide}:passing", "x", ex=60)
    redis.set("_kombu.binding.celery", "not ours")

    assert leaked_keys(redis, []) == sorted(STRAY)
    assert leaked_keys(redis, ["{lowtide}:batch:*", "{other}:x"]) == [
        "{lowtide}:forgotten",
        f"{{lowtide}}:lane:{OTHER.key}",
        f"{{lowtide}}:lane:{OTHER.key}:lines",
        "{lowtide}:task:t",
    ]
