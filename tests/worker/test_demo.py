"""`make demo` as a user without a terminal sees it: from nothing to answers, and nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lowtide.simulator import SimulatorServer, SimulatorSettings
from lowtide.simulator.report import totals
from lowtide.simulator.turnaround import parse
from tests.plugins.stack import ROOT, until
from tests.worker.conftest import processes
from worker.demo.run import main

Ended = Callable[[], None]


def demo(*words: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "worker.demo", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", **env},
    )


def test_summarises_real_text_and_leaves_nothing(home: Path, nothing_left: Ended) -> None:
    ran = demo("--limit", "3", "--all")
    said, _ = ran.communicate(timeout=240)

    assert ran.returncode == 0, said
    assert "Summarising the descriptions of 3 installed packages" in said
    for stage in ("accepted 3", "sealed 3 (in 1 batch)", "sent 3", "ended 3", "delivered 3"):
        assert stage in said
    assert "end expected at" in said
    assert "3 answers" in said
    assert "aiohappyeyeballs" in said
    assert "1 batch" in said
    assert "saved (50%)" in said
    assert said.rstrip().endswith("Done; nothing is left running.")
    nothing_left()
    assert list(home.iterdir()) == []


def test_ctrl_c_ends_everything(home: Path, nothing_left: Ended) -> None:
    ran = demo("--limit", "3")
    assert ran.stdout is not None
    until(lambda: "accepted" in (ran.stdout.readline()), "calls are made")  # type: ignore[union-attr]
    assert len(processes(home)) > 4

    ran.send_signal(signal.SIGINT)

    said, _ = ran.communicate(timeout=120)
    assert ran.returncode == 130, said
    assert "Stopped. Nothing is left running." in said
    nothing_left()
    assert list(home.iterdir()) == []


def test_a_killed_demo_leaves_nothing_running(home: Path, nothing_left: Ended) -> None:
    ran = demo("--limit", "3")
    assert ran.stdout is not None
    until(lambda: "accepted" in (ran.stdout.readline()), "calls are made")  # type: ignore[union-attr]

    ran.kill()
    ran.communicate(timeout=120)

    nothing_left()


def test_a_failure_says_why_and_where_to_read_on(home: Path, nothing_left: Ended) -> None:
    ran = demo("--limit", "3", TASKS_PARAMS="none")
    said, _ = ran.communicate(timeout=240)

    assert ran.returncode == 1
    assert "lowtide: worker-1 did not start: ended with exit code 1." in said
    assert "TASKS_PARAMS is not JSON" in said
    (log,) = home.glob("demo-*/demo.log")
    assert f"Log: {log}" in said.replace("\n", "")
    nothing_left()


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "LOWTIDE_ACCOUNTS"])
def test_no_money_is_spent_unasked(home: Path, nothing_left: Ended, name: str) -> None:
    value = '{"default": {"api_key": "sk-x"}}' if name == "LOWTIDE_ACCOUNTS" else "sk-x"
    ran = demo("--limit", "3", **{name: value})
    said, _ = ran.communicate(timeout=120)

    assert ran.returncode == 1
    assert "3 requests, about" in said
    assert "by batch" in said
    assert "ARGS=--yes" in said
    assert "starting" not in said
    nothing_left()


def test_with_a_key_a_stopped_run_is_gone_on_with(home: Path, nothing_left: Ended) -> None:
    with SimulatorServer(SimulatorSettings(working=parse("8s"))) as provider:
        account = {"OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": provider.base_url}
        env = {**account, "LOWTIDE_MAX_WAIT": "1s", "LOWTIDE_POLL_MIN": "500ms"}
        first = demo("--limit", "2", "--yes", **env)
        assert first.stdout is not None
        until(lambda: "sent 2" in (first.stdout.readline()), "calls are sent")  # type: ignore[union-attr]
        first.send_signal(signal.SIGINT)
        said, _ = first.communicate(timeout=120)
        assert said.endswith("provider: `make demo` again picks up its answers.\n")

        second = demo("--limit", "2", **env)
        said, _ = second.communicate(timeout=240)

        assert second.returncode == 0, said
        assert "2 calls of an earlier run are under way" in said
        assert "Spend it?" not in said
        assert "This cost" in said
        billed = totals(provider.world.store)
        assert (billed["billed"], billed["billed_twice"]) == (2, 0)
    nothing_left()


def test_a_provider_that_cannot_be_reached_is_told_of(home: Path, nothing_left: Ended) -> None:
    account = {"OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}
    ran = demo("--limit", "2", "--yes", **account, LOWTIDE_MAX_WAIT="1s")
    assert ran.stdout is not None
    until(
        lambda: "not sent: Account default: " in ran.stdout.readline(),  # type: ignore[union-attr]
        "the reason is told",
    )

    ran.send_signal(signal.SIGINT)

    said, _ = ran.communicate(timeout=120)
    assert ran.returncode == 130, said
    assert said.endswith(
        "Nothing was sent, so nothing was spent: `make demo` again goes on with it.\n"
    )
    assert "within 24 hours" not in said
    nothing_left()


@pytest.mark.parametrize("limit", ["0", "-3", "all"])
def test_a_limit_that_takes_no_text_is_refused(
    limit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--limit", limit])

    assert ended.value.code == 2
    assert f"--limit: {limit} is no number of 1 or more" in capsys.readouterr().err
