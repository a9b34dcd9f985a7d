"""Fixtures: a RabbitMQ of the tests' own, from PATH or Debian's package; a fresh vhost for each."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lowtide.embedded import _die_with_parent

_NAMES = itertools.count(1)
_PATIENCE = 90.0


class RabbitServer:
    """A server in a folder of its own, on free ports of loopback."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lowtide-mq-"))
        self.port, self._dist = _free_port(), _free_port()
        self._node = f"lowtide{self.port}@localhost"
        home = self.folder / "home"
        home.mkdir()
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\ndisk_free_limit.absolute = 50MB\n"
            "vm_memory_high_watermark.absolute = 1GB\nlog.file.level = warning\n"
        )
        (self.folder / "enabled_plugins").write_text("[].\n")
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "ERL_EPMD_PORT": str(_free_port()),
            # Two schedulers, and none of them spinning while it has nothing to do.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server; returns when it takes connections."""
        # Were it started by the server, it would be a daemon that outlives it.
        self._epmd = subprocess.Popen(
            ["epmd"],
            env=self._env,
            stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent(),  # noqa: PLW1509 - it takes no lock
        )
        self._process = subprocess.Popen(
            [_program("rabbitmq-server")],
            env=self._env,
            cwd=self.folder,
            stdout=(self.folder / "out").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent(),  # noqa: PLW1509 - it takes no lock
        )
        end = time.monotonic() + _PATIENCE
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"RabbitMQ: {(self.folder / 'out').read_text()[-2000:]}")
            time.sleep(0.1)
        self.control("await_startup")

    def control(self, *words: str) -> str:
        """Runs `rabbitmqctl` and returns what it says."""
        done = subprocess.run(
            [_program("rabbitmqctl"), "--quiet", "-n", self._node, *words],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {words[0]}: {done.stderr or done.stdout}")
        return done.stdout

    def vhost(self) -> str:
        """The URL of a new, empty virtual host."""
        name = f"test{next(_NAMES)}"
        self.control("add_vhost", name)
        self.control("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{name}"

    def remove(self) -> None:
        """Ends the server and what it started, and deletes its folder."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_PATIENCE)
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(_PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)


def _program(name: str) -> str:
    """Debian's wrappers change the user and the environment; the programs behind them do not."""
    plain = Path("/usr/lib/rabbitmq/bin") / name
    found = str(plain) if plain.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"no {name} on PATH: apt-get install rabbitmq-server")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitServer]:
    server = None
    try:
        _program("rabbitmq-server")
        server = RabbitServer()
        server.start()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        if server is not None:
            server.remove()
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no RabbitMQ: {error}")
    yield server
    server.remove()


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitServer) -> str:
    return rabbitmq_server.vhost()
