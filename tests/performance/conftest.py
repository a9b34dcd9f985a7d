from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery

from tests.performance.shop import shop


@pytest.fixture
def app(redis_url, redis) -> Iterator[Celery]:
    """The shop's app, whose messages and subscriptions go with it."""
    made = shop(redis_url)
    yield made
    redis.delete("celery", "_kombu.binding.celery")
    # Results that are collected later have no server to unsubscribe from.
    made.backend.result_consumer.stop()
    made.backend.result_consumer._pubsub = None
    made.close()
