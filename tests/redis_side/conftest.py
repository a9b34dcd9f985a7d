from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from lowtide.buffer import Buffer
from lowtide.clock import SimulatedClock, SystemClock
from lowtide.settings import Settings
from lowtide.timers import Timers
from tests.redis_side.support import START


def settings(**values: Any) -> Settings:
    return Settings.model_construct(**values)


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(START)


@pytest.fixture
def make_buffer(redis: Redis, clock: SimulatedClock) -> Callable[..., Buffer]:
    """A buffer with the given settings, on simulated time."""
    return lambda **values: Buffer(redis, settings(**values), clock)


@pytest.fixture
def buffer(make_buffer: Callable[..., Buffer]) -> Buffer:
    return make_buffer()


@pytest.fixture
def timers(redis: Redis, clock: SimulatedClock) -> Timers:
    return Timers(redis, settings(), clock)


@pytest.fixture
def real_buffer(redis: Redis) -> Callable[..., Buffer]:
    """A buffer with the given settings, on the server's time."""
    return lambda **values: Buffer(redis, settings(**values), SystemClock())


@pytest.fixture
def no_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch ids follow from the time: see `support.batch_id`."""
    monkeypatch.setattr(secrets, "randbits", lambda bits: 0)


@pytest.fixture
def trips(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Tells how often something was sent to the server so far: a pipeline is sent once."""
    from redis.connection import AbstractConnection

    sent = [0]
    send = AbstractConnection.send_packed_command

    def counting(self: Any, command: Any, *args: Any, **options: Any) -> Any:
        sent[0] += 1
        return send(self, command, *args, **options)

    redis.ping()
    monkeypatch.setattr(AbstractConnection, "send_packed_command", counting)
    return lambda: sent[0]
