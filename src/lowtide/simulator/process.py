"""A simulator in a process of its own, that a test can also kill."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from lowtide.simulator.steering import Steering


class SimulatorProcess(Steering):
    """``python -m lowtide.simulator`` on a free port.

    A context manager. ``kill`` is ``kill -9``; ``start`` after it goes on with the same state, on
    the same port.

    Args:
        state: directory that keeps everything.
        flags: further flags of ``lowtide simulate``.
    """

    def __init__(self, state: Path, *flags: str) -> None:
        super().__init__("")
        self._state = state
        self._flags = flags
        self._port = "0"
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Of the running process.

        Raises:
            RuntimeError: when it does not run.
        """
        if self._process is None:
            raise RuntimeError("the simulator does not run")
        return self._process.pid

    def start(self) -> Self:
        """Start it, and return when it answers.

        Raises:
            RuntimeError: when it ends instead; its own message is on stderr.
        """
        flags = ["--port", self._port, "--state", str(self._state), *self._flags]
        command = [sys.executable, "-m", "lowtide.simulator", *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if process.stdout is None:
            raise RuntimeError("no pipe to the simulator")
        line = process.stdout.readline()
        if not line.startswith("READY"):
            process.wait()
            raise RuntimeError(f"the simulator did not start: exit {process.returncode}")
        self._process = process
        self.base_url = line.partition("base_url=")[2].strip()
        self.url = self.base_url.removesuffix("/v1")
        self._port = self.url.rpartition(":")[2]
        return self

    def kill(self) -> None:
        """End it without a warning, as a crash does."""
        self._end(force=True)

    def stop(self) -> None:
        """End it in order; nothing happens when it does not run."""
        self._end(force=False)

    def _end(self, *, force: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        (process.kill if force else process.terminate)()
        process.wait()
        if process.stdout:
            process.stdout.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
