"""`lowtide run`: a table through a batch task, stopped, gone on with, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from lowtide.tables import Run, runs_in
from tests.cli.conftest import Command
from tests.plugins.stack import ROOT, Stack, until

TEXT = "Celery is a distributed task queue. Row {} is about workers and brokers."


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows([number, TEXT.format(number)] for number in range(20))
        writer.writerow([20, ""])
    return path


def command(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lowtide.cli", "run", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def test_a_table_comes_back_with_answers(stack: Stack, table: Path, tmp_path: Path) -> None:
    env = {**stack.env, "PYTHONPATH": str(ROOT)}
    stack.env |= {"LOWTIDE_BROKER_URL": stack.redis_url, "LOWTIDE_RESULT_BACKEND": stack.redis_url}
    stack.worker("worker.app")
    stack.ready(Celery(broker=stack.redis_url, set_as_current=False))
    words = ["summarize", "in.csv", "--column", "text", "-o", "out.csv", "-A", "worker.app"]
    words += ["--yes"]
    os.environ |= env
    unknown = command(tmp_path, "sumarize", *words[1:])
    said, _ = unknown.communicate(timeout=60)
    assert unknown.returncode == 1
    assert said == (
        "lowtide: No worker that runs knows the task tasks.sumarize; did you mean "
        "tasks.summarize? Nothing was sent.\n"
    )

    first = command(tmp_path, *words)
    assert first.stdout is not None
    assert "No worker answers" not in said
    until(lambda: "sent" in first.stdout.readline(), "rows are sent")  # type: ignore[union-attr]
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=60)

    if first.returncode == 130:  # it may have been done by then
        assert "The same command goes on with it." in said
        second = command(tmp_path, *words)
        said, _ = second.communicate(timeout=120)
        assert second.returncode == 1, said  # the last row has no text
    done = subprocess.run(
        [sys.executable, "-m", "lowtide.cli", "run", *words, "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )

    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["answered"], summary["failed"]) == (21, 20, 1)
    assert summary["finished"]
    assert "20 answers and 1 errors are in out.csv" in said
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "lowtide: 1 of 21 rows has an error, see the column error of out.csv; most often, 1 time: "
        "The row has no text."
    )
    written = rows(tmp_path / "out.csv")
    assert [row["id"] for row in written] == [str(number) for number in range(21)]
    assert all(row["answer"] and not row["error"] for row in written[:20])
    assert not written[20]["answer"]
    assert stack.simulator.report()["totals"]["billed"] == 20


def test_a_column_that_is_not_there_is_one_line(
    lowtide: Command, deployment: str, table: Path
) -> None:
    ran = lowtide("run", "summarize", "in.csv", "--column", "body", "-o", "out.csv")
    assert ran.code == 1
    assert ran.err == "lowtide: The table has no column 'body'; it has: id, text.\n"


def test_a_file_that_is_not_there_is_one_line(lowtide: Command, deployment: str) -> None:
    ran = lowtide("run", "summarize", "no.csv", "--column", "text", "-o", "out.csv")
    assert ran.code == 1
    assert ran.err.startswith("lowtide: no.csv cannot be read")


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("out.foo", "out.foo is no table that can be written; its name has to end with .csv, "),
        ("in.csv", "in.csv is the table itself; write the answers to another file."),
        ("link.csv", "link.csv is the table itself; write the answers to another file."),
        ("folder.csv", "folder.csv is a folder; give the name of a file."),
        ("in.csv/out.csv", "in.csv/out.csv cannot be written: "),
    ],
)
def test_what_cannot_be_written_is_told_before_anything_is_sent(
    lowtide: Command, deployment: str, redis: Any, table: Path, out: str, told: str
) -> None:
    (table.parent / "folder.csv").mkdir()
    (table.parent / "link.csv").symlink_to(table)
    before = table.read_bytes()

    ran = lowtide("run", "summarize", "in.csv", "--column", "text", "-o", out, "--yes")

    assert ran.code == 1
    assert ran.err.startswith(f"lowtide: {told}")
    assert not list((table.parent / "home").glob("runs/*"))
    assert not redis.keys()
    assert table.read_bytes() == before


def test_without_a_terminal_nothing_is_spent_unless_yes_was_said(
    lowtide: Command, deployment: str, redis: Any, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    ran = lowtide("run", "summarize", "in.csv", "--column", "text", "-o", "out.csv")

    assert ran.code == 1
    assert "21 rows of in.csv through tasks.summarize" in ran.out
    assert TEXT.format(2) in ran.out
    assert TEXT.format(3) not in ran.out
    assert "The price is known where the task's code is: -A your_app shows it." in ran.out
    assert ran.err == (
        "lowtide: This spends money, and there is no terminal to ask at: say so with --yes.\n"
    )
    assert not redis.exists("celery")  # the queue


def test_what_was_not_begun_or_was_stopped_waits_for_somebody_to_say_so(
    lowtide: Command, deployment: str, redis: Any, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run", "summarize", "in.csv", "--column", "text", "-o", "out.csv")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    lowtide(*words)
    (declined,) = runs_in(table.parent / "home" / "runs")
    assert declined.progress().stopped  # or a page that starts would send it
    declined.close()

    monkeypatch.setattr(Run, "_send", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    ran = lowtide(*words, "--yes")

    assert ran.code == 130
    assert "No worker answers: what is sent waits in the broker for one." in ran.out
    assert "Stopped: 0 of 21 rows are back." in ran.out
    (stopped,) = runs_in(table.parent / "home" / "runs")
    assert stopped.progress().stopped
    stopped.close()
