"""What fails again and again is said once a minute; a Redis that forgot is noticed."""

from __future__ import annotations

import errno
import logging
import uuid
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from lowtide import pipeline, quiet, runtime
from lowtide.clock import SimulatedClock
from lowtide.setbacks import Setbacks

logger = logging.getLogger("tests.quiet")


@pytest.fixture
def rt(tmp_path: Path, redis_url: str) -> runtime.Runtime:
    app = Celery(f"quiet-{uuid.uuid4().hex}", broker="memory://", set_as_current=False)
    app.conf.lowtide = {"redis_url": redis_url, "home": tmp_path}
    return runtime.of(app)


def kind() -> str:
    return f"kind-{uuid.uuid4().hex}"


def test_one_line_a_minute_and_how_many_more(caplog, monkeypatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("lowtide.quiet.time.monotonic", lambda: now[0])
    name = kind()

    logged = [quiet.warn(logger, name, "it failed: %s", n) for n in range(5)]
    now[0] += quiet.EVERY + 1
    quiet.warn(logger, name, "it failed: %s", 9)

    assert logged == [True, False, False, False, False]
    assert [record.getMessage() for record in caplog.records] == [
        "it failed: 0",
        "it failed: 9 (and 4 more like it since the last such line)",
    ]


def test_counts_reach_redis_once_it_is_back(rt: runtime.Runtime, monkeypatch) -> None:
    name = kind()
    for _ in range(3):
        quiet.warn(logger, name, "it failed")
    with monkeypatch.context() as patch:
        patch.setattr(type(rt), "redis", property(lambda _self: _raise(OSError("away"))))
        quiet.pass_on(rt)

    quiet.pass_on(rt)
    quiet.pass_on(rt)

    assert quiet.counts(rt)[name] == 3


def test_a_full_disk_is_a_line_and_no_trace(rt: runtime.Runtime, caplog) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    for _ in range(50):
        pipeline._guard(rt, "submit", "b1", lambda: _raise(full))

    lines = [record for record in caplog.records if "No space left" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].exc_info is None
    assert quiet.counts(rt)["disk"] >= 50


def test_a_failover_that_lost_the_last_writes(rt: runtime.Runtime, redis: Redis, caplog) -> None:
    clock = rt.clock = SimulatedClock()
    watch = Setbacks(f"w-{kind()}")
    name = f"{{lowtide}}:told:{watch._hostname}"
    assert watch.look(rt, redis) is None
    old: Any = redis.get(name)
    clock.advance(1)
    assert watch.look(rt, redis) is None

    redis.set(name, old, ex=60)
    clock.advance(1)

    assert watch.look(rt, redis) == pytest.approx(2)
    assert "lost writes" in caplog.text
    assert watch.look(rt, redis) is None


def test_an_emptied_redis(rt: runtime.Runtime, redis: Redis) -> None:
    watch = Setbacks("w1@here")
    watch.look(rt, redis)
    redis.flushdb()

    assert watch.look(rt, redis) == 0.0


def _raise(error: Exception) -> Any:
    raise error
