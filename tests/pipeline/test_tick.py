"""What the tick sends of what is due."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from redis import Redis

from lowtide import bootstep, queues
from lowtide.runtime import Runtime


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    messages: list[tuple[object, ...]] = []
    monkeypatch.setattr(Runtime, "send", lambda _, *args: messages.append(args))
    return messages


@pytest.mark.parametrize(("crowd", "steps"), [(bootstep._CROWDED, 2), (bootstep._CROWDED + 1, 0)])
def test_steps_are_not_sent_once_more_to_a_long_queue(
    rt: Runtime, sent: list[tuple[object, ...]], crowd: int, steps: int
) -> None:
    rt.timers.arm("fetch", "b1", 1.0)
    rt.timers.arm("poll", "b2", 1.0)
    rt.timers.arm("seal", "lane", 1.0)
    with rt.app.pool.acquire(block=True) as connection:
        channel = connection.default_channel
        channel._purge("lowtide")  # brokers in memory are one for all tests
        for _ in range(crowd):
            channel._put("lowtide", {"body": ""})

        bootstep.tick(rt)
        channel._purge("lowtide")

    assert ("seal", "lane") in sent
    assert len([each for each in sent if each[0] in ("fetch", "poll")]) == steps
    # Whatever was sent, it is due again after a lease.
    soon = rt.clock.now() + rt.settings.lease
    timers: Any = rt.redis.zrange("{lowtide}:timers", 0, -1, withscores=True)
    scores = dict(timers)
    assert all(soon - 5 < scores[name] <= soon + 5 for name in (b"fetch:b1", b"poll:b2"))


def test_a_step_of_a_later_release_is_left_and_stops_no_other(
    rt: Runtime, sent: list[tuple[object, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    rt.app.finalize()
    rt.timers.arm("archive", "b1", 1.0)
    rt.timers.arm("fetch", "b2", 1.0)
    rt.timers.arm("poll", "b3", 1.0)

    bootstep.tick(rt)

    assert sent == [("fetch", "b2"), ("poll", ["b3"])]
    assert "archive:b1" in caplog.text
    due = rt.timers.due_at("archive", "b1")
    assert due == pytest.approx(rt.clock.now() + rt.settings.lease, abs=5)


def test_queues_of_redis_tell_how_long_they_are(redis: Redis, redis_url: str) -> None:
    app = Celery("long", broker=redis_url, set_as_current=False)
    app.conf.broker_transport = "lowtide.broker:Transport"
    redis.rpush("lowtide", "a", "b")

    assert queues.waiting(app, "lowtide") == 2
    redis.delete("lowtide")
