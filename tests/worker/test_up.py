"""`make up`: the stack kept running, joined from elsewhere, stopped by one Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from tests.plugins.stack import ROOT, until
from tests.worker.conftest import processes
from worker.process import free_port
from worker.stack import Plan


class Up:
    """`python -m worker.up` and what it has printed so far."""

    def __init__(self) -> None:
        self.printed: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker.up", "--delay", "200ms"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "120", "LOWTIDE_MAX_WAIT": "500ms"},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        return "".join(self.printed)

    def waits_for(self, text: str) -> None:
        until(lambda: text in self.text or self.process.poll() is not None, f"{text!r} is printed")
        assert text in self.text

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.printed.extend(self.process.stdout)


@pytest.fixture
def up(home: Path) -> Iterator[Up]:
    running = Up()
    yield running
    if running.process.poll() is None:
        ended_by_pid_alone(running.process)


def ended_by_pid_alone(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def environment(home: Path) -> dict[str, str]:
    lines = (home / "up.env").read_text().splitlines()
    return dict(line.removeprefix("export ").replace("'", "").split("=", 1) for line in lines)


def in_the_deployment(home: Path, code: str) -> str:
    env = {**os.environ, **environment(home)}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=90)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


SUMMARIZE = (
    "from worker.app import app\n"
    "from tasks.summarize import summarize\n"
    "print(summarize.delay('Celery is a task queue. It is written in Python.').get(timeout=60))"
)


def test_runs_alone_joins_heals_and_stops(
    up: Up, home: Path, nothing_left: Callable[[], None]
) -> None:
    up.waits_for("lowtide is up")

    # Another one in its folder is one too many, and does it no harm.
    second = Up()
    second.waits_for("Another embedded Redis uses")
    assert second.process.wait(60) == 1
    assert up.process.poll() is None

    # A call from another terminal, as the banner says.
    assert "Celery" in in_the_deployment(home, SUMMARIZE)

    # Flower asks for its password, and knows both workers.
    found = re.search(r"http://(\w+):([\w-]+)@(127\.0\.0\.1:\d+)", up.text)
    assert found
    user, password, address = found.groups()
    assert httpx2.get(f"http://{address}/workers").status_code == 401
    shown = httpx2.get(f"http://{address}/workers", auth=(user, password), timeout=30)
    assert {"worker-1", "worker-2"} <= set(re.findall(r"worker-\d", shown.text))

    # The page shows what was done.
    page = re.search(r"Page +(http://127\.0\.0\.1:\d+)", up.text)
    assert page
    assert "gpt-5-mini" in httpx2.get(f"{page[1]}/batches", timeout=30).text

    # A worker that is killed comes back, and work goes on.
    killed = next(line for line in processes(home) if "worker-1@" in line)
    os.kill(int(killed.partition(":")[0]), signal.SIGKILL)
    up.waits_for("it is started again")
    assert "Celery" in in_the_deployment(home, SUMMARIZE)

    # One Ctrl-C ends everything.
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 0
    up.waits_for("stopped; nothing is left running")
    nothing_left()
    assert not (home / "up.env").exists()


def test_a_shell_that_was_told_of_a_stack_starts_no_second_one_in_it(
    home: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOWTIDE_REDIS_URL", redis_url)
    home.mkdir(exist_ok=True)
    (home / "up.env").write_text(f"export LOWTIDE_REDIS_URL={redis_url}\n")

    second = Up()

    assert second.process.wait(60) == 1
    second.waits_for("runs already")
    assert (home / "up.env").exists()


def test_a_redis_that_is_gone_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWTIDE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/1")

    up = Up()

    assert up.process.wait(60) == 1
    up.waits_for("unset LOWTIDE_REDIS_URL")
    assert "Trying again" not in up.text


def test_the_key_of_a_simulator_is_none() -> None:
    plan = Plan(Path("home"), {"OPENAI_API_KEY": "sk-simulated"})
    assert plan.simulated
    assert not Plan(Path("home"), {"OPENAI_API_KEY": "sk-real"}).simulated


def test_a_bad_setting_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWTIDE_TIKC", "1s")
    ran = subprocess.run(
        [sys.executable, "-m", "worker.up"], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert ran.returncode == 1
    assert "Unknown setting LOWTIDE_TIKC; did you mean LOWTIDE_TICK?" in ran.stderr
    assert not (home / "valkey").exists()
