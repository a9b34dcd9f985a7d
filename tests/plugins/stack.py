"""A whole deployment for a test: Redis, ledger, simulator, worker processes; each its own."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest
from celery import Celery

ROOT = Path(__file__).parents[2]
WAIT = 60.0


def until(condition: Callable[[], Any], what: str, timeout: float = WAIT) -> Any:
    """Waits until `condition` gives something true, and returns that."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout:.0f} s: {what}")


def ended_by_pid(process: subprocess.Popen[Any], sig: int = signal.SIGTERM) -> None:
    """Ends a process and its group; a prefork worker that hangs in its shutdown is killed."""
    all_ended_by_pid([process], sig)


def all_ended_by_pid(
    processes: Collection[subprocess.Popen[Any]], sig: int = signal.SIGTERM
) -> None:
    """Ends processes and their groups, all at the same time."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(sig)
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Simulator:
    """`python -m lowtide.simulator` on a random port."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.log = (folder / "simulator.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lowtide.simulator", "--port", "0", *flags],
            stdout=subprocess.PIPE,
            stderr=self.log,
            cwd=folder,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert "READY" in line, (folder / "simulator.log").read_text()
        self.base_url = next(word for word in line.split() if "http" in word).split("=", 1)[-1]
        self.root = self.base_url.removesuffix("/v1")

    def report(self) -> dict[str, Any]:
        """What was run and billed."""
        answer = httpx2.get(f"{self.root}/simulator/report", timeout=30)
        answer.raise_for_status()
        return dict(answer.json())

    def stop(self) -> None:
        ended_by_pid(self.process)
        self.log.close()


@dataclass
class Stack:
    """What a test of the whole needs, under one namespace and in one folder."""

    folder: Path
    redis_url: str
    simulator: Simulator
    env: dict[str, str]
    workers: list[subprocess.Popen[Any]] = field(default_factory=list)

    def worker(
        self,
        module: str,
        *flags: str,
        name: str = "w1",
        pool: str = "prefork",
        concurrency: int = 2,
    ) -> subprocess.Popen[Any]:
        """Starts `celery -A module worker` and returns its process; see `ready`."""
        log = (self.folder / f"{name}.log").open("ab")
        command = [sys.executable, "-m", "celery", "-A", module, "worker", "-n", f"{name}@test"]
        command += ["-c", str(concurrency), "-P", pool, "-l", "INFO"]
        command += ["--without-gossip", "--without-mingle", *flags]
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={**os.environ, **self.env},
            start_new_session=True,
        )
        log.close()
        self.workers.append(process)
        return process

    def ready(self, app: Celery, count: int = 1) -> None:
        """Waits until `count` workers answer a ping."""

        def answering() -> bool:
            assert all(worker.poll() is None for worker in self.workers), "a worker ended"
            return len(app.control.ping(timeout=0.5, limit=count)) >= count

        try:
            until(answering, f"{count} workers answer")
        except AssertionError:
            raise AssertionError(self.logs()) from None

    def logs(self) -> str:
        """The end of every log, for a failure's message."""
        return "\n".join(
            f"== {path.name}\n{path.read_text()[-6000:]}" for path in self.folder.glob("*.log")
        )

    def stop_workers(self) -> None:
        """Ends every worker."""
        all_ended_by_pid(self.workers)
        self.workers.clear()

    def stop(self) -> None:
        """Ends all that was started."""
        self.stop_workers()
        self.simulator.stop()


def client_of(module: str, *made_with: str) -> Any:
    """An app's module as a process of a client has it: imported now, for this deployment.

    The addresses in it are those that the environment names now, whoever imported it before;
    `made_with` are modules that it takes them from. Its app is the current one, to which tasks
    of `@batch_task` belong.
    """
    for name in (module, *made_with):
        sys.modules.pop(name, None)
    client = importlib.import_module(module)
    client.app.set_current()
    return client


def _fields(given: object) -> dict[str, Any]:
    return getattr(given, "__dict__", {})


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """The app of the client that a test asks for is the current one, whatever ran before it."""
    for given in getattr(item, "funcargs", {}).values():
        client = given if isinstance(given, ModuleType) else _fields(given).get("client")
        app = getattr(client, "app", None)
        if isinstance(app, Celery):
            app.set_current()


@contextlib.contextmanager
def deployment(folder: Path, redis_url: str, *flags: str) -> Iterator[Stack]:
    """A simulator with `flags`, and an environment in which workers of it are started."""
    simulator = Simulator(folder, *flags)
    env = {
        "OPENAI_API_KEY": "simulator",
        "OPENAI_BASE_URL": simulator.base_url,
        "LOWTIDE_REDIS_URL": redis_url,
        "LOWTIDE_HOME": str(folder / "home"),
        "LOWTIDE_MAX_WAIT": "0.3s",
        "LOWTIDE_TICK": "0.1s",
        "LOWTIDE_POLL_MIN": "0.1s",
        "LOWTIDE_RETRY_DELAY": "0.2s",
        "PYTHONPATH": str(ROOT),
    }
    stack = Stack(folder, redis_url, simulator, env)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        try:
            yield stack
        finally:
            stack.stop()


@pytest.fixture
def stack(tmp_path: Path, redis_url: str) -> Iterator[Stack]:
    """A deployment of a test's own; workers are started by the test."""
    with deployment(tmp_path, redis_url) as stack:
        yield stack
