from __future__ import annotations

from redis import Redis

from lowtide.connect import connect


def test_one_client_per_url_and_kind(redis_url: str, redis: Redis) -> None:
    assert connect(redis_url) is redis
    assert connect(redis_url, short=True) is not redis
    assert redis.ping()
