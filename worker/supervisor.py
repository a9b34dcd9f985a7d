"""Runs several programs side by side: starts them in order, restarts them, ends every one."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Self

from lowtide.clock import Clock, SystemClock
from lowtide.errors import LowtideError
from worker.process import LogSink, Process, Program

START_SECONDS = 60.0
MAX_QUICK_ENDS = 4
QUICK = 15.0
_POLL = 0.1


class Stopped(Exception):
    """Somebody asked for the end: Ctrl-C, SIGTERM or a closed terminal."""


def restart_delay(quick_ends: int) -> float:
    """Seconds to wait before a program that ended `quick_ends` times in a row starts again."""
    return float(min(2**quick_ends, 30))


@dataclass(slots=True)
class _Child:
    program: Program
    stage: int
    process: Process | None = None
    started: float = 0.0
    quick_ends: int = 0
    due: float = 0.0


class Supervisor:
    """Holds programs and ends all of them when it is left, whatever happened.

    Use as a context manager, from the main thread: it takes over SIGINT, SIGTERM and SIGHUP.
    The first of them asks for a clean end; the next kills what is still running. Should this
    process itself be killed, a watchdog ends the programs.

    Args:
        sink: Gets (name, line) for each line of output.
        say: Gets the supervisor's own news.
    """

    def __init__(
        self, sink: LogSink, say: Callable[[str], None], clock: Clock | None = None
    ) -> None:
        self._sink = sink
        self._say = say
        self._clock = clock or SystemClock()
        self._children: list[_Child] = []
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._old_handlers: dict[signal.Signals, object] = {}
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._old_handlers[name] = signal.signal(name, self._on_signal)
        self._watchdog = subprocess.Popen(
            [sys.executable, "-S", str(Path(__file__).with_name("watchdog.py"))],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            if self._watchdog is not None:
                self._watchdog.communicate()
            for name, handler in self._old_handlers.items():
                signal.signal(name, handler)  # type: ignore[arg-type]

    @property
    def stopping(self) -> bool:
        """Whether the end was asked for."""
        return self._stop.is_set()

    def check(self) -> None:
        """Raises `Stopped` once the end was asked for."""
        if self.stopping:
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Waits, looking after the programs meanwhile.

        Raises:
            Stopped: The end was asked for.
            LowtideError: A program cannot be kept running.
        """
        end = self._clock.monotonic() + seconds
        while True:
            self.check()
            self.tend()
            left = end - self._clock.monotonic()
            if left <= 0:
                return
            self._stop.wait(min(left, _POLL))

    def start(self, programs: Sequence[Program]) -> None:
        """Starts programs together and waits until all of them are ready.

        Raises:
            Stopped: The end was asked for.
            LowtideError: One ended or was not ready in time.
        """
        stage = max((child.stage for child in self._children), default=0) + 1
        children = [self._launch(program, stage) for program in programs]
        deadline = self._clock.monotonic() + START_SECONDS
        for child in children:
            while child.process is not None and not child.process.ready:
                self.check()
                if not child.process.running:
                    raise LowtideError(
                        f"{child.program.name} did not start: {_ended(child.process.reap())}."
                    )
                if self._clock.monotonic() > deadline:
                    raise LowtideError(
                        f"{child.program.name} was not ready after {START_SECONDS:.0f} s."
                    )
                self._stop.wait(_POLL)

    def tend(self) -> None:
        """One look at every program: those that ended are started again, later each time.

        Raises:
            LowtideError: A program keeps ending soon after its start.
        """
        now = self._clock.monotonic()
        for child in self._children:
            if child.process is None:
                if now >= child.due:
                    self._run(child)
            elif not child.process.running:
                self._bury(child, now)

    def stop(self) -> None:
        """Ends all programs, those started together together, the last started first.

        Each is asked, and killed when its grace is over.
        """
        for stage in sorted({child.stage for child in self._children}, reverse=True):
            self._stop_stage([child for child in self._children if child.stage == stage])
        self._children.clear()

    def _stop_stage(self, children: Sequence[_Child]) -> None:
        for child in children:
            if child.process is not None:
                child.process.terminate()
        asked = self._clock.monotonic()
        for child in children:
            process, grace = child.process, child.program.grace
            while process is not None and process.running and not self._hurry.is_set():
                if self._clock.monotonic() - asked > grace:
                    self._say(f"{child.program.name} did not end in time and is killed")
                    break
                self._hurry.wait(_POLL)
            self._forget(child)

    def pids(self) -> dict[str, int]:
        """Process id of each program that runs now."""
        return {c.program.name: c.process.pid for c in self._children if c.process is not None}

    def _launch(self, program: Program, stage: int) -> _Child:
        child = _Child(program, stage)
        self._children.append(child)
        self._run(child)
        return child

    def _run(self, child: _Child) -> None:
        child.process = Process(child.program, self._sink)
        child.started = self._clock.monotonic()
        self._note("+", child.process.pid)

    def _bury(self, child: _Child, now: float) -> None:
        quick = now - child.started < QUICK
        child.quick_ends = child.quick_ends + 1 if quick else 0
        ended = _ended(self._forget(child))
        if child.quick_ends >= MAX_QUICK_ENDS:
            raise LowtideError(
                f"{child.program.name} {ended}, {child.quick_ends} times in a row soon after its "
                "start; its last lines above say why."
            )
        delay = restart_delay(child.quick_ends)
        child.due = now + delay
        self._say(f"{child.program.name} {ended}; it is started again in {delay:.0f} s")

    def _forget(self, child: _Child) -> int:
        process, child.process = child.process, None
        if process is None:
            return 0
        process.kill()
        self._note("-", process.pid)
        return process.reap()

    def _note(self, sign: str, pid: int) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._watchdog.stdin.write(f"{sign}{pid}\n".encode())
                self._watchdog.stdin.flush()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._stop.is_set() and number == signal.SIGINT:
            self._hurry.set()
        self._stop.set()


def _ended(code: int) -> str:
    """How a program ended, in words."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
