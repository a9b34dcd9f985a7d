"""A worker process, a client app, and something that answers: what each canvas test has."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from lowtide.connect import connect
from tests.canvas import drivers, fake_runtime
from tests.plugins.redis import started_redis
from tests.plugins.stack import ROOT, all_ended_by_pid, until

MODULE = "tests.canvas.canvas_app"
PICKLE = {
    # Extended, results hold the arguments, in JSON.
    "CANVAS_CONF": '{"accept_content": ["json", "pickle"], "result_extended": false}',
    "C_FORCE_ROOT": "1",
}


@dataclass
class World:
    """One worker and what belongs to it.

    Attributes:
        app: The client's side of the worker's app.
        driver: What answers.
    """

    app: Celery
    redis: Any
    driver: Any
    folder: Path
    env: dict[str, str]
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def worker(self, name: str, pool: str, *flags: str) -> subprocess.Popen[bytes]:
        """Starts a worker and waits until it answers."""
        sizes = {"prefork": "2", "solo": "1"}
        command = [sys.executable, "-m", "celery", "-A", MODULE, "worker", "-n", f"{name}@canvas"]
        command += ["-P", pool, "-c", sizes.get(pool, "8"), "-l", "INFO"]
        command += ["--without-gossip", "--without-mingle", *flags]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, **self.env},
                start_new_session=True,
            )
        self.workers[name] = process
        until(lambda: self._answers(name, process), f"worker {name} answers: {self.log(name)}")
        return process

    def _answers(self, name: str, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, self.log(name)
        return bool(self.app.control.ping(destination=[f"{name}@canvas"], timeout=0.3))

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text()[-5000:] if path.exists() else ""

    def stop(self) -> None:
        all_ended_by_pid(self.workers.values())


def _since(now: tuple[int, int], then: tuple[int, int]) -> float:
    return now[0] - then[0] + (now[1] - then[1]) / 1e6


@dataclass
class Side:
    """The canvas as one of the twins sees it: tasks by attribute, and what they left in Redis."""

    world: World
    plain: bool
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __getattr__(self, name: str) -> Any:
        tasks = self.world.app.tasks
        if self.plain and f"plain_{name}" in tasks:
            return tasks[f"plain_{name}"]
        if name not in tasks:
            raise AttributeError(name)
        return tasks[name]

    def note(self) -> Any:
        """A signature that notes the result it gets."""
        return self.world.app.tasks["note"].s(key=self.key)

    def errback(self) -> Any:
        return self.world.app.tasks["errcb"].s(key=self.key)

    def old_errback(self) -> Any:
        return self.world.app.tasks["errcb_old"].s(key=self.key)

    def notes(self, count: int) -> list[str]:
        """What was noted: waits for `count` notes, then for all that was sent until then."""
        return self.left(self.key, count)

    def left(self, key: str, count: int) -> list[str]:
        redis = self.world.redis
        until(lambda: redis.llen(key) >= count, f"{count} entries in {key}")
        self.settle()
        return sorted(item.decode() for item in redis.lrange(key, 0, -1))

    def settle(self) -> None:
        """Waits until the worker has done what it was sent so far."""
        for _ in range(2):
            self.world.app.tasks["join"].delay([1]).get(timeout=60)

    def settle_seconds(self, seconds: float) -> None:
        """Waits until the server's clock has gone on by `seconds`: for what expires there."""
        start = self.world.redis.time()
        until(lambda: _since(self.world.redis.time(), start) >= seconds, "time passes")

    def hooks(self, result: Any, count: int) -> list[str]:
        """What the task's hooks noted, sorted: a retry may be done before the first try's hook."""
        return self.left(f"hooks:{result.id}", count)

    @contextmanager
    def held(self) -> Iterator[Callable[[Any], None]]:
        """Within the block no answer comes; the value waits until a call was accepted."""
        driver = self.world.driver
        driver.hold()

        def accepted(result: Any) -> None:
            if not self.plain:
                until(result.where, "the call is accepted")

        try:
            yield accepted
        finally:
            driver.release()


@pytest.fixture(scope="session")
def canvas_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = started_redis(tmp_path_factory.mktemp("canvas-redis"))
    yield server.url
    server.stop()


@contextmanager
def made_world(
    url: str, folder: Path, driver: str, env: dict[str, str] | None = None
) -> Iterator[World]:
    """A client app and its driver, in a database of their own; workers are started by hand."""
    redis = connect(url)
    redis.flushdb()
    answers = drivers.make(driver, folder, url)
    full = {"CANVAS_REDIS": url, "PYTHONPATH": str(ROOT), **answers.env, **(env or {})}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in full.items():
            patch.setenv(name, value)
        from tests.canvas import canvas_app

        app = canvas_app.make_app(url, full.get("CANVAS_BACKEND"))
        app.finalize()
        world = World(app, redis, answers, folder, full)
        answers.start(app, redis)
        try:
            yield world
        finally:
            answers.stop()
            world.stop()
            # Results that are collected later have no server to unsubscribe from.
            app.backend.result_consumer.stop()
            app.backend.result_consumer._pubsub = None
            app.close()


@pytest.fixture
def world(canvas_server: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """A world of a test's own, on the stand-in; `request.param` is its environment."""
    url = canvas_server.removesuffix("/0") + "/15"
    with made_world(url, tmp_path, "fake", getattr(request, "param", None)) as made:
        yield made


@pytest.fixture(scope="module")
def running(canvas_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world on the stand-in with one worker that takes what all tests of a module send."""
    url = canvas_server.removesuffix("/0") + "/14"
    with made_world(url, tmp_path_factory.mktemp("running"), "fake") as made:
        made.worker("w1", "prefork")
        yield made


@pytest.fixture
def shared(running: World) -> World:
    """The module's world, whose stand-in has forgotten the requests of other tests."""
    running.redis.delete(*fake_runtime.KEPT)
    return running


@pytest.fixture
def ours(world: World) -> Side:
    """The batch tasks of the test's world."""
    return Side(world, plain=False)


@contextmanager
def events_of(world: World) -> Iterator[list[dict[str, Any]]]:
    """Every event that is sent within the block."""
    seen: list[dict[str, Any]] = []
    stop, listening = threading.Event(), threading.Event()

    def listen() -> None:
        with world.app.connection() as connection:
            receiver = world.app.events.Receiver(connection, handlers={"*": seen.append})
            with receiver.consumer_context() as (own, _, _):
                while not stop.is_set():
                    with suppress(TimeoutError):
                        own.drain_events(timeout=0.1)
                    # It subscribes as it first waits.
                    listening.set()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    assert listening.wait(10)
    yield seen
    stop.set()
    thread.join()


def kinds(seen: list[dict[str, Any]], task_id: str) -> list[str]:
    mine = [event for event in seen if event.get("uuid") == task_id]
    mine.sort(key=lambda event: event["timestamp"])
    return [str(event["type"]).removeprefix("task-") for event in mine]


def held_by(world: World, name: str) -> int:
    """How many messages the worker has taken and not yet answered for."""
    told = world.app.control.inspect([f"{name}@canvas"], timeout=1).reserved() or {}
    return len(told.get(f"{name}@canvas", []))
