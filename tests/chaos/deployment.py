"""A deployment that can be broken part by part: Valkey, database, simulator, worker processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from redis import Redis

from lowtide.clock import SystemClock
from lowtide.embedded import EmbeddedRedis
from lowtide.ledger import Ledger
from tests.chaos.client import STREAM
from tests.chaos.proxy import Proxy
from tests.plugins.postgres import PostgresServer
from tests.plugins.stack import ROOT, ended_by_pid, until

LEASE = 3.0


class Provider:
    """The simulator, with its state on disk, on one port over all restarts."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.state = folder / "simulator"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.root = f"http://127.0.0.1:{self.port}"
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "lowtide.simulator", "--port", str(self.port)]
        command += ["--state", str(self.state), *self._flags]
        with (self.folder / "simulator.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert b"READY" in line, (self.folder / "simulator.log").read_text()

    def kill(self) -> None:
        if self._process is not None:
            ended_by_pid(self._process, signal.SIGKILL)
            self._process = None

    stop = kill


class Worker:
    """`celery worker`, which can be started again under its name."""

    def __init__(self, name: str, folder: Path, env: dict[str, str], flags: Sequence[str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._folder = folder
        self._env = env
        self._flags = flags
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "celery", "-A", "tests.chaos.app", "worker"]
        command += ["-n", f"{self.name}@chaos", "-l", "INFO", "--without-gossip"]
        command += ["--without-mingle", *self._flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={**os.environ, **self._env},
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def children(self) -> list[psutil.Process]:
        """Its pool processes."""
        if self.process is None or not self.alive:
            return []
        with contextlib.suppress(psutil.Error):
            return list(psutil.Process(self.process.pid).children())
        return []

    def kill(self) -> None:
        """Ends the worker and its pool processes, as a machine that fails would."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def stop(self) -> None:
        if self.process is not None:
            ended_by_pid(self.process)


class Deployment:
    """All of it in one folder.

    Args:
        folder: For logs, state and the database.
        database: "sqlite" or "postgres".
        workers: How many worker processes.
        simulator: Flags of the simulator.
        proxied: Whether workers reach Redis, provider and database through proxies.
        flags: Of each worker.
        env: More environment of the workers.
    """

    def __init__(
        self,
        folder: Path,
        *,
        database: str = "sqlite",
        workers: int = 1,
        simulator: Sequence[str] = (),
        proxied: bool = False,
        flags: Sequence[str] = ("-c", "2"),
        env: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.valkey = EmbeddedRedis()
        self.postgres: PostgresServer | None = None
        self.proxies: dict[str, Proxy] = {}
        self.workers: list[Worker] = []
        self._stop = contextlib.ExitStack()
        try:
            self._start_services(database, simulator, proxied=proxied)
            self.env = {**self._environment(), **(env or {})}
            ledger = Ledger(self.ledger_url, SystemClock())
            ledger.create()  # so that a test may look into it from the start
            ledger.close()
            for number in range(1, workers + 1):
                worker = Worker(f"w{number}", folder, self.env, flags)
                self.workers.append(worker)
                self._stop.callback(worker.kill)
                worker.start()
        except BaseException:
            self.stop()
            raise

    def _start_services(self, database: str, simulator: Sequence[str], *, proxied: bool) -> None:
        self._stop.callback(self.valkey.stop)
        self.restart_valkey()
        self.provider = Provider(self.folder, *simulator)
        self._stop.callback(self.provider.stop)
        if database == "postgres":
            self.postgres = PostgresServer()
            self._stop.callback(self.postgres.remove)
            self.postgres.start()
            self.postgres.execute("CREATE DATABASE ledger")
        if proxied:
            self._start_proxies()

    def _start_proxies(self) -> None:
        self.proxies["redis"] = Proxy(("127.0.0.1", self.valkey.port))
        self.proxies["provider"] = Proxy(("127.0.0.1", self.provider.port))
        if self.postgres is not None:
            name = ".s.PGSQL.5432"
            between = self.postgres.folder.with_name(self.postgres.folder.name + "-proxy")
            between.mkdir()
            self._stop.callback(shutil.rmtree, between)
            self.proxies["database"] = Proxy(self.postgres.folder / name, between / name)
        for proxy in self.proxies.values():
            self._stop.callback(proxy.stop)

    def _environment(self) -> dict[str, str]:
        env = {
            "OPENAI_API_KEY": "simulator",
            "OPENAI_BASE_URL": f"{self.provider.root}/v1",
            "LOWTIDE_REDIS_URL": self.valkey.url,
            "LOWTIDE_HOME": str(self.folder / "home"),
            "LOWTIDE_MAX_WAIT": "0.5s",
            "LOWTIDE_MAX_REQUESTS": "200",
            "LOWTIDE_TICK": "0.2s",
            "LOWTIDE_LEASE": f"{LEASE}s",
            "LOWTIDE_POLL_MIN": "0.3s",
            "LOWTIDE_POLL_MAX": "3s",
            "LOWTIDE_RETRY_DELAY": "0.3s",
            "LOWTIDE_ADOPT_WAIT": "2s",
            "LOWTIDE_MAX_ATTEMPTS": "20",
            "LOWTIDE_SLICE_REQUESTS": "50",
            "LOWTIDE_DESTINATIONS": json.dumps({"feed": {"stream": STREAM, "maxlen": 10**6}}),
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        }
        if "redis" in self.proxies:
            env["LOWTIDE_REDIS_URL"] = f"redis://127.0.0.1:{self.proxies['redis'].port}/0"
            port = self.proxies["provider"].port
            env["OPENAI_BASE_URL"] = f"http://127.0.0.1:{port}/v1"
        if self.postgres is not None:
            env["LOWTIDE_DATABASE_URL"] = self.postgres.url("ledger")
            if self.proxies:
                through = f"{self.postgres.folder}-proxy"
                env["LOWTIDE_DATABASE_URL"] = f"postgresql://postgres@/ledger?host={through}"
        return env

    @property
    def ledger_url(self) -> str:
        """The ledger by the direct path."""
        if self.postgres is not None:
            return self.postgres.url("ledger")
        return f"sqlite:///{self.folder / 'home' / 'ledger.db'}"

    @property
    def redis(self) -> Redis:
        """Redis by the direct path."""
        return self._redis

    def restart_valkey(self, *, kill: bool = False) -> None:
        """Ends Valkey, if it runs, and starts it on the same port with what it had on disk."""
        (self.valkey.kill if kill else self.valkey.stop)()
        url = self.valkey.start(self.folder / "valkey", self.valkey.port)
        self._redis = Redis.from_url(url, socket_timeout=10)
        # What was answered is on disk: a killed server has lost nothing that a client relies on.
        self._redis.config_set("appendfsync", "always")

    def ready(self, app: Any) -> None:
        """Waits until every worker answers."""

        def answering() -> bool:
            assert all(worker.alive for worker in self.workers), self.logs()
            return len(app.control.ping(timeout=0.5, limit=len(self.workers))) >= len(self.workers)

        until(answering, "workers answer", timeout=120)

    def logs(self, last: int = 4000) -> str:
        """The end of every worker's log."""
        return "\n".join(
            f"== {worker.name}\n{worker.log.read_text(errors='replace')[-last:]}"
            for worker in self.workers
            if worker.log.exists()
        )

    def said_about(self, task_id: str) -> list[str]:
        """The lines of the workers' logs that name a task."""
        return [
            f"{worker.name}: {line.rstrip()[:300]}"
            for worker in self.workers
            for line in worker.log.read_text(errors="replace").splitlines()
            if task_id in line
        ]

    def stop(self) -> None:
        self._stop.close()
