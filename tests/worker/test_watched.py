"""Task events are made and sent only while a worker is set to send them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from celery import Celery

from lowtide import pulse, runtime
from lowtide.events import TaskEvents
from lowtide.pulse import Pulse
from tests.plugins.stack import Stack, until

MODULE = "tests.replay.app"


def made(url: str, **conf: Any) -> Celery:
    app = Celery("watched", broker=url, set_as_current=False)
    app.conf.update(lowtide={"redis_url": url}, **conf)
    return app


def events(app: Celery) -> list[Any]:
    told = TaskEvents(app, "w1@test")
    task = SimpleNamespace(name="t", send_events=True)
    told.received(task, {"id": "a", "root_id": "a", "parent_id": None}, ("x",), {})
    told.add(task, "task-succeeded", "a")
    return told._events


def test_no_event_is_made_where_no_worker_sends_them(redis_url: str) -> None:
    app = made(redis_url)
    Pulse("w1@test").beat(runtime.of(app), watched=False)

    assert events(app) == []


def test_events_are_made_once_a_worker_says_that_it_sends_them(redis_url: str) -> None:
    app = made(redis_url)
    Pulse("w1@test").beat(runtime.of(app), watched=True)

    assert [kind for kind, _ in events(app)] == [
        "task-received",
        "task-started",
        "task-succeeded",
    ]


def test_an_apps_setting_needs_no_worker_to_say_so() -> None:
    assert len(events(made("redis://127.0.0.1:1", worker_send_task_events=True))) == 3


def test_without_redis_no_event_is_made() -> None:
    assert events(made("redis://127.0.0.1:1")) == []


def test_what_flower_switches_on_is_seen(stack: Stack) -> None:
    stack.worker(MODULE)
    app = made(stack.redis_url)
    rt = runtime.of(app)
    until(lambda: pulse.age(rt, "w1@test") is not None, "the worker ticks")
    assert not pulse.watched(rt)

    app.control.enable_events()

    until(lambda: pulse.watched(rt), "the worker says so")
