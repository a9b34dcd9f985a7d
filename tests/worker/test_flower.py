"""Flower, the real one: a batch task's row, its revoke, and more tasks than it keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from celery import Celery

from lowtide import task_ref
from lowtide.events import TaskEvents
from lowtide.simulator.steering import Steering
from tests.plugins.stack import ROOT, Stack, client_of, ended_by_pid, until
from worker.process import free_port

pytestmark = pytest.mark.slow
LANE = "default:/v1/chat/completions:gpt-5-mini"
Ask = Callable[..., Any]


@pytest.fixture
def app(stack: Stack) -> Celery:
    """The deployment's app, made for this test's Redis."""
    made: Celery = client_of("worker.app", "config.celeryconfig").app
    return made


@pytest.fixture
def flower(stack: Stack) -> Iterator[Callable[..., Ask]]:
    """Starts Flower as `make up` does; gives what asks it."""
    running = []

    def start(*flags: str) -> Ask:
        port = free_port()
        command = [sys.executable, "-m", "celery", "-A", "worker.app", "flower"]
        command += ["--conf=config/flower.py", f"--port={port}", "--address=127.0.0.1", *flags]
        env = {**os.environ, **stack.env, "FLOWER_UNAUTHENTICATED_API": "true"}
        with (stack.folder / "flower.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True
            )
        running.append(process)

        def ask(path: str, method: str = "GET") -> Any:
            request = Request(f"http://127.0.0.1:{port}{path}", method=method)
            try:
                with urlopen(request, timeout=30) as answer:
                    return json.loads(answer.read() or b"null")
            except (URLError, ConnectionError, json.JSONDecodeError):
                return None

        until(lambda: ask("/api/tasks") == {}, "Flower answers")
        return ask

    yield start
    for process in running:
        ended_by_pid(process)


def test_a_row_tells_state_lane_batch_arguments_and_the_whole_time(
    stack: Stack, app: Celery, flower: Callable[..., Ask]
) -> None:
    ask = flower()
    stack.worker("worker.app")
    stack.ready(app)
    simulator = Steering(stack.simulator.root)
    simulator.turnaround(working="1h")
    result = task_ref("tasks.summarize", app=app).delay("The gull flies over the pier. " * 20)

    def row() -> dict[str, Any]:
        return ask(f"/api/task/info/{result.id}") or {}

    until(lambda: row().get("state") == "SUBMITTED", "the row says that it is submitted")
    batch = result.info["batch"]
    assert row()["routing_key"] == f"lane {LANE} batch {batch}"
    assert row()["args"] == "(<str: 600>)"
    simulator.turnaround(working=0)
    simulator.advance("2h")

    until(lambda: row().get("state") == "SUCCESS", "the row says that it has ended")
    assert row()["routing_key"] == f"lane {LANE} batch {batch}"
    assert row()["runtime"] >= row()["succeeded"] - row()["started"] - 1
    assert row()["result"].startswith("<str: ")
    assert "gull" not in json.dumps(row())


def test_a_task_that_waits_is_revoked_from_flower(
    stack: Stack, app: Celery, flower: Callable[..., Ask]
) -> None:
    ask = flower()
    stack.worker("worker.app")
    stack.ready(app)
    Steering(stack.simulator.root).turnaround(working="1h")
    result = task_ref("tasks.summarize", app=app).delay("The buoy bobs.")
    until(lambda: (ask(f"/api/task/info/{result.id}") or {}).get("state") == "SUBMITTED", "sent")

    ask(f"/api/task/revoke/{result.id}", "POST")

    until(lambda: result.state == "REVOKED", "the task is revoked")
    told = f"/api/task/info/{result.id}"
    until(lambda: ask(told)["state"] == "REVOKED", "its row says so")


def test_it_keeps_the_newest_and_goes_on(
    stack: Stack, app: Celery, flower: Callable[..., Ask]
) -> None:
    ask = flower("--max-tasks=1000")
    task = SimpleNamespace(name="tasks.summarize", send_events=True)

    def tell(number: int) -> None:
        events = TaskEvents(app, "w1@test")
        for name in (f"task-{n}" for n in range(number, number + 500)):
            events.received(task, {"id": name, "root_id": name, "parent_id": None}, ("x",), {})
            events.buffered(task, name, LANE)
            events.submitted(task, name, LANE, "b1", 1_700_000_000.0)
            events.add(task, "task-succeeded", name, result="<str: 9>", runtime=2.0)
        events.send()

    for number in range(0, 5_000, 500):
        tell(number)

    until(lambda: ask("/api/task/info/task-4999"), "the last is there")
    kept = ask("/api/tasks?limit=10000")
    assert len(kept) == 1000
    assert "task-4000" in kept
    assert {row["state"] for row in kept.values()} == {"SUCCESS"}
    last = ask("/api/task/info/task-4999")["routing_key"]
    assert last == f"lane {LANE} batch b1 end about 14 Nov 22:13 UTC"
