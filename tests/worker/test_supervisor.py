"""The supervisor with real programs: what it starts it also ends, with all of their children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lowtide.clock import SimulatedClock
from lowtide.errors import LowtideError
from worker.process import Program, free_port
from worker.supervisor import MAX_QUICK_ENDS, Stopped, Supervisor, restart_delay

ROOT = Path(__file__).parents[2]
FOREVER = "import time; print('ready', flush=True); time.sleep(600)"
WITH_CHILD = (
    "import subprocess, sys, time;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print('child', child.pid, flush=True); print('ready', flush=True); time.sleep(600)"
)
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True); time.sleep(600)"
)


def python(name: str, code: str, **options: object) -> Program:
    return Program(name, [sys.executable, "-c", code], **options)  # type: ignore[arg-type]


def ready(name: str, code: str, **options: object) -> Program:
    return python(name, code, ready_line="ready", **options)


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        os.sched_yield()


def gone(pid: int) -> bool:
    """No such process, or one that only waits to be reaped by whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def tend_for_ever(supervisor: Supervisor, clock: SimulatedClock) -> None:
    while True:
        supervisor.tend()
        if not supervisor.pids():
            clock.advance(restart_delay(MAX_QUICK_ENDS))


class Heard(list[tuple[str, str]]):
    def __call__(self, name: str, line: str) -> None:
        self.append((name, line))

    def pid_of_child(self) -> int:
        return next(int(line.split()[1]) for _, line in self if line.startswith("child"))


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
def supervisor(heard: Heard, said: list[str]) -> Iterator[Supervisor]:
    with Supervisor(heard, said.append) as running:
        yield running


def test_ends_programs_and_what_they_started(heard: Heard, said: list[str]) -> None:
    with Supervisor(heard, said.append) as supervisor:
        supervisor.start([ready("parent", WITH_CHILD)])
        pids = [*supervisor.pids().values(), heard.pid_of_child()]
        assert not any(gone(pid) for pid in pids)

    until(lambda: all(gone(pid) for pid in pids))


def test_a_program_that_ignores_sigterm_is_killed(supervisor: Supervisor, said: list[str]) -> None:
    supervisor.start([ready("deaf", DEAF, grace=0.2)])
    pid = supervisor.pids()["deaf"]

    supervisor.stop()

    assert gone(pid)
    assert said == ["deaf did not end in time and is killed"]


def test_waits_for_a_port(supervisor: Supervisor) -> None:
    port = free_port()
    listen = (
        f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(600)"
    )

    supervisor.start([python("server", listen, ready_port=port)])

    assert free_port(port) != port


def test_a_program_that_ends_before_it_is_ready_is_an_error(supervisor: Supervisor) -> None:
    with pytest.raises(LowtideError, match="broken did not start: ended with exit code 3"):
        supervisor.start([ready("broken", "raise SystemExit(3)")])


def test_starts_again_what_was_killed(heard: Heard, said: list[str], clock: SimulatedClock) -> None:
    with Supervisor(heard, said.append, clock) as supervisor:
        supervisor.start([ready("work", FOREVER)])
        first = supervisor.pids()["work"]

        os.kill(first, signal.SIGKILL)
        while "work" in supervisor.pids():
            supervisor.tend()
        assert said == ["work was ended by SIGKILL; it is started again in 2 s"]
        supervisor.tend()
        assert supervisor.pids() == {}

        clock.advance(restart_delay(1))
        supervisor.tend()
        assert supervisor.pids()["work"] != first


def test_gives_up_on_a_program_that_keeps_ending(
    heard: Heard, said: list[str], clock: SimulatedClock
) -> None:
    with Supervisor(heard, said.append, clock) as supervisor:
        supervisor.start([python("brief", "raise SystemExit(1)")])
        with pytest.raises(LowtideError, match="brief ended with exit code 1, 4 times in a row"):
            tend_for_ever(supervisor, clock)

    assert len(said) == MAX_QUICK_ENDS - 1


def test_delays_before_a_restart_grow_to_half_a_minute() -> None:
    assert [restart_delay(ends) for ends in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_ctrl_c_asks_for_the_end(supervisor: Supervisor) -> None:
    supervisor.check()

    os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        supervisor.wait(60)


def test_the_second_ctrl_c_kills(supervisor: Supervisor) -> None:
    supervisor.start([ready("deaf", DEAF, grace=600)])
    pid = supervisor.pids()["deaf"]

    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    supervisor.stop()

    assert gone(pid)


def test_handlers_are_put_back(heard: Heard, said: list[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with Supervisor(heard, said.append):
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_a_killed_supervisor_leaves_nothing_running(tmp_path: Path) -> None:
    script = tmp_path / "supervise.py"
    script.write_text(
        "import sys\n"
        "from worker.process import Program\n"
        "from worker.supervisor import Supervisor\n"
        f"program = Program('p', [sys.executable, '-c', {WITH_CHILD!r}], ready_line='ready')\n"
        "with Supervisor(lambda name, line: print(line, flush=True), print) as supervisor:\n"
        "    supervisor.start([program])\n"
        "    print('parent', supervisor.pids()['p'], flush=True)\n"
        "    supervisor.wait(600)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=env
    ) as outer:
        assert outer.stdout is not None
        pids: dict[str, str] = {}
        while not {"child", "parent"} <= pids.keys():
            word, _, number = outer.stdout.readline().partition(" ")
            pids[word.strip()] = number
        outer.kill()

    until(lambda: gone(int(pids["child"])) and gone(int(pids["parent"])))
