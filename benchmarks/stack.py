"""What the benchmarks run on: a Valkey, a simulator without delay, workers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from benchmarks import cpu
from lowtide.embedded import EmbeddedRedis

PATIENCE = 900.0


def until(condition: Callable[[], bool], what: str, every: float = 0.1) -> None:
    """Waits for a condition.

    Raises:
        SystemExit: It did not come true.
    """
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"not within {PATIENCE:.0f} s: {what}")
        time.sleep(every)


@dataclass(slots=True)
class Stack:
    """Servers and workers of one run, in a folder of its own.

    Attributes:
        redis: URL of the Valkey, without a database.
        provider: Base URL of the simulator; "" without one.
        pids: Name → the main process of each worker.
    """

    folder: Path
    redis: str
    provider: str = ""
    pids: dict[str, int] = field(default_factory=dict)
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *words: str, mark: str) -> str:
        """Starts `python -m words…`; returns the line of its log that holds `mark`."""
        path = self.folder / f"{name}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes[name] = process
        self.pids[name] = process.pid
        found: list[str] = []

        def ready() -> bool:
            if process.poll() is not None:
                raise SystemExit(f"{name} ended:\n{path.read_text()[-3000:]}")
            found[:] = [line for line in path.read_text().splitlines() if mark in line]
            return bool(found)

        until(ready, f"{name} is ready")
        return found[0]

    def worker(self, name: str, app: str, processes: int = 1, pool: str = "prefork") -> None:
        """Starts a worker of `app` ("module:attribute") and waits until it takes messages."""
        self.start(
            name,
            *("celery", "-A", app, "worker", "-n", f"{name}@bench", "-c", str(processes)),
            *("-P", pool, "-l", "INFO", "--without-gossip", "--without-mingle"),
            mark=" ready.",
        )

    def stop(self, name: str) -> None:
        """Ends a program and its children."""
        process = self._processes.pop(name)
        self.pids.pop(name)
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop_all(self) -> None:
        """Ends all programs."""
        for name in list(self._processes):
            self.stop(name)

    def spent(self, prefix: str) -> float:
        """Seconds of CPU of all programs whose name begins with `prefix`, children included."""
        return cpu.spent([pid for name, pid in self.pids.items() if name.startswith(prefix)])

    def workers(self, prefix: str) -> list[int]:
        """Main processes of the programs whose name begins with `prefix`."""
        return [pid for name, pid in self.pids.items() if name.startswith(prefix)]

    def client(self, database: int) -> Redis:
        """A client of one database of the Valkey."""
        return Redis.from_url(f"{self.redis}/{database}")


@contextlib.contextmanager
def stack(*, simulator: bool = True, flags: tuple[str, ...] = ()) -> Iterator[Stack]:
    """Valkey, and the simulator; the environment names them. Nothing is left afterwards."""
    before = dict(os.environ)
    with (
        tempfile.TemporaryDirectory(prefix="lowtide-bench-") as folder,
        EmbeddedRedis() as valkey,
    ):
        url = valkey.start(f"{folder}/valkey").removesuffix("/0")
        running = Stack(Path(folder), url)
        os.environ |= {"BENCH_REDIS": url, "BENCH_HOME": f"{folder}/home"}
        try:
            if simulator:
                words = ("lowtide.simulator", "--port", "0", *flags)
                line = running.start("simulator", *words, mark="READY ")
                running.provider = line.split("base_url=")[1].strip()
                os.environ |= {
                    "OPENAI_API_KEY": "sk-simulated",
                    "OPENAI_BASE_URL": running.provider,
                }
            yield running
        finally:
            running.stop_all()
            os.environ.clear()
            os.environ.update(before)
