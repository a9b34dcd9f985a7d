"""One child program in a process group of its own: it ends with all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

LogSink = Callable[[str, str], None]
"""Takes a program's name and one line of its output."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run and how to know that it is there.

    Attributes:
        name: Short name for logs.
        argv: Command and arguments.
        env: Whole environment of the program.
        ready_port: TCP port on loopback that it listens on once it is ready.
        ready_line: Part of the output line that says it is ready.
        grace: Seconds it may take to end after SIGTERM before it is killed.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    ready_port: int | None = None
    ready_line: str | None = None
    grace: float = 10.0


class Process:
    """A running program.

    Args:
        program: What to run.
        sink: Gets each line of its output, from a thread of its own.
    """

    def __init__(self, program: Program, sink: LogSink) -> None:
        self.program = program
        self._sink = sink
        self._said_ready = threading.Event()
        # Its own session: Ctrl-C in the terminal reaches us alone, and we say who ends when.
        self._popen = subprocess.Popen(
            list(program.argv),
            env=dict(program.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"log {program.name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id, which is its group's id too."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether the program has not ended."""
        if self._popen.returncode is not None:
            return False
        # WNOWAIT leaves the zombie: as long as it is there, its group's id belongs to nobody else.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    @property
    def ready(self) -> bool:
        """Whether the program does its work by now."""
        port = self.program.ready_port
        if port is not None:
            return _listens(port)
        return self.program.ready_line is None or self._said_ready.is_set()

    def terminate(self) -> None:
        """Asks the program itself, not what it started, to end."""
        if self.running:
            self._popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the program and all that it started, at once."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Clears up after a program that ended: what it left behind is killed.

        Returns:
            Its exit code, negative for a signal.
        """
        self.kill()
        code = self._popen.wait()
        self._reader.join(timeout=2)
        return code

    def _read(self) -> None:
        stream = self._popen.stdout
        assert stream is not None  # noqa: S101 - opened as a pipe above
        mark = self.program.ready_line
        with stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip()
                if mark is not None and mark in line:
                    self._said_ready.set()
                self._sink(self.program.name, line)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def free_port(preferred: int = 0) -> int:
    """`preferred` when nothing listens there, otherwise some free port on loopback."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")
