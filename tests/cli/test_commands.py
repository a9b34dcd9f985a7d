"""`lowtide`: what each command shows, its JSON, its exit codes, and one line for what is wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from lowtide.buffer import Buffer
from lowtide.clock import SystemClock
from lowtide.connect import connect
from lowtide.lane import Lane
from lowtide.request import Request
from lowtide.settings import load
from tests.cli.conftest import Command
from tests.plugins.stack import Stack, until

LANE = Lane("default", "/v1/chat/completions", "gpt-5-mini")
CLOSED = "redis://127.0.0.1:1/0"


def waiting(url: str, count: int, lane: Lane = LANE) -> None:
    buffer = Buffer(connect(url), load(), SystemClock())
    names = [f"{lane.model}-{number}" for number in range(count)]
    buffer.append([Request(f"{n}.0.0", n, "tasks.t", lane, b"{}", b"", 7, None) for n in names])


def test_version(lowtide: Command) -> None:
    assert lowtide("--version").out.strip() == version("lowtide")


def test_an_unknown_command_is_a_usage_error(lowtide: Command) -> None:
    ran = lowtide("flsh")
    assert ran.code == 2
    assert "flsh" in ran.err


def test_help_is_quick_and_needs_no_services(lowtide: Command) -> None:
    ran = lowtide("--help")
    assert ran.code == 0
    assert "doctor" in ran.out


class TestSettings:
    def test_tells_value_and_source(
        self, lowtide: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / ".env").write_text("LOWTIDE_MAX_REQUESTS=77\n")
        monkeypatch.setenv("LOWTIDE_MAX_WAIT", "2m")
        monkeypatch.setenv("LOWTIDE_ESCALATE_PER_DAY", "2.5")

        rows = {row["name"]: row for row in json.loads(lowtide("settings", "--json").out)}

        assert rows["LOWTIDE_MAX_WAIT"]["value"] == "2m"
        assert rows["LOWTIDE_STATE_TTL"]["value"] == "14d"
        assert rows["LOWTIDE_ESCALATE_PER_DAY"]["value"] == "2.5"
        assert rows["LOWTIDE_MAX_WAIT"]["from"] == "environment"
        assert rows["LOWTIDE_MAX_REQUESTS"]["value"] == "77"
        assert rows["LOWTIDE_MAX_REQUESTS"]["from"] == ".env"
        assert rows["LOWTIDE_TICK"]["from"] == "default"

    def test_what_the_app_sets_is_the_value_in_force(
        self, lowtide: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LOWTIDE_MAX_WAIT", "2m")
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "setting_app.py").write_text(
            "from celery import Celery\n"
            "app = Celery('setting', broker='memory://', set_as_current=False)\n"
            f"app.conf.lowtide = {{'max_wait': '9m', 'database_url': 'sqlite:///{tmp_path}/its.db'}}\n"
        )

        rows = json.loads(lowtide("settings", "--json", "-A", "setting_app").out)
        (row,) = [row for row in rows if row["name"] == "LOWTIDE_MAX_WAIT"]
        assert (row["value"], row["from"]) == ("9m", "app")

        assert lowtide("migrate", "-A", "setting_app").code == 0
        assert (tmp_path / "its.db").exists()

    def test_a_worker_checks_what_its_app_sets(
        self, lowtide: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "wrong_app.py").write_text(
            "from celery import Celery\n"
            "app = Celery('wrong', broker='memory://', set_as_current=False)\n"
            "app.conf.lowtide = {'max_wait': 'soon'}\n"
        )

        ran = lowtide("worker", "-A", "wrong_app")

        assert ran.code == 2
        assert ran.err.startswith("lowtide: Setting LOWTIDE_MAX_WAIT = 'soon'")

    def test_an_app_that_the_environment_names_is_told_to_come_from_there(
        self, lowtide: Command, deployment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("APP", "production")

        for command in ("settings", "status"):
            ran = lowtide(command)
            assert ran.code == 1
            assert ran.err.startswith("lowtide: The Celery app 'production' cannot be imported: ")
            assert ran.err.endswith(
                " APP in the environment names it: unset APP, or name your app with -A.\n"
            )
        assert "environment" not in lowtide("status", "-A", "no_such_app").err

    def test_shows_no_secrets(self, lowtide: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOWTIDE_REDIS_URL", "redis://me:hunter2@localhost/0")
        monkeypatch.setenv("LOWTIDE_ACCOUNTS", '{"eu": {"api_key": "sk-hunter2"}}')
        monkeypatch.setenv("LOWTIDE_WEB_TOKEN", "hunter2")

        for words in (("settings",), ("settings", "--json")):
            assert "hunter2" not in lowtide(*words).out

    def test_an_unknown_name_is_one_line_with_the_nearest(
        self, lowtide: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LOWTIDE_MAX_WIAT", "1s")
        ran = lowtide("settings")
        assert ran.code == 2
        assert (
            ran.err == "lowtide: Unknown setting LOWTIDE_MAX_WIAT; did you mean LOWTIDE_MAX_WAIT?\n"
        )

    def test_a_bad_value_is_one_line(
        self, lowtide: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LOWTIDE_MAX_WAIT", "soon")
        ran = lowtide("status")
        assert ran.code == 2
        assert ran.err.startswith("lowtide: Setting LOWTIDE_MAX_WAIT = 'soon'")
        assert ran.err.count("\n") == 1


class TestStatus:
    def test_shows_what_waits(self, lowtide: Command, deployment: str) -> None:
        waiting(deployment, 3)

        shown = json.loads(lowtide("status", "--json").out)

        (lane,) = shown["lanes"]
        assert (lane["lane"], lane["requests"], lane["tokens"]) == (LANE.key, 3, 21)
        assert shown["batches"] == []
        assert "gpt-5-mini" in lowtide("status").out

    def test_without_anything_says_so(self, lowtide: Command, deployment: str) -> None:
        ran = lowtide("status")
        assert ran.code == 0
        assert "No lane yet" in ran.out
        assert "No batch is on its way" in ran.out

    def test_without_redis_is_one_line(
        self, lowtide: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LOWTIDE_REDIS_URL", CLOSED)
        ran = lowtide("status")
        assert ran.code == 1
        assert ran.err.startswith("lowtide: ")
        assert ran.err.count("\n") == 1


class TestFlush:
    def test_seals_every_lane(self, lowtide: Command, deployment: str) -> None:
        waiting(deployment, 2)
        waiting(deployment, 1, Lane("default", "/v1/embeddings", "small"))

        sent = json.loads(lowtide("flush", "--json").out)

        assert sorted(batch["requests"] for batch in sent) == [1, 2]
        buffer = Buffer(connect(deployment), load(), SystemClock())
        assert {batch.batch_id for batch in buffer.sealed()} == {b["batch"] for b in sent}
        assert lowtide("flush").out == "Nothing waits.\n"

    def test_seals_the_lane_of_a_model_alone(self, lowtide: Command, deployment: str) -> None:
        waiting(deployment, 2)
        waiting(deployment, 1, Lane("default", "/v1/embeddings", "small"))

        (sent,) = json.loads(lowtide("flush", "small", "--json").out)

        assert sent["lane"] == "default:/v1/embeddings:small"

    def test_a_lane_without_requests_is_an_error_that_names_the_others(
        self, lowtide: Command, deployment: str
    ) -> None:
        waiting(deployment, 2)
        ran = lowtide("flush", "gpt-4")
        assert ran.code == 1
        assert ran.err == f"lowtide: Nothing waits in gpt-4; lanes with requests: {LANE.key}.\n"


class TestWorker:
    def test_asks_for_the_app(self, lowtide: Command) -> None:
        ran = lowtide("worker")
        assert ran.code == 2
        assert "lowtide worker -A" in ran.err

    def test_names_an_app_that_cannot_be_imported(self, lowtide: Command) -> None:
        ran = lowtide("worker", "-A", "no_such_app")
        assert ran.code == 1
        assert ran.err.startswith("lowtide: The Celery app 'no_such_app' cannot be imported")

    def test_is_a_celery_worker(self, stack: Stack, tmp_path: Path) -> None:
        words = ["worker", "-A", "tests.integration.app", "--pool", "solo", "--loglevel", "INFO"]
        with subprocess.Popen(
            [sys.executable, "-m", "lowtide.cli", *words],
            stdout=(tmp_path / "w.log").open("wb"),
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
        ) as worker:
            until(lambda: " ready." in (tmp_path / "w.log").read_text(), "the worker is ready")
            worker.send_signal(signal.SIGTERM)
        assert worker.returncode == 0


def test_migrate_makes_the_tables(lowtide: Command, deployment: str, tmp_path: Path) -> None:
    ran = lowtide("migrate")
    assert ran.code == 0
    assert "is up to date" in ran.out
    assert (tmp_path / "home" / "ledger.db").exists()


def test_simulate_without_its_packages_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['starlette'] = None; sys.argv = ['lowtide', 'simulate']\n"
        "from lowtide.cli import main; main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "pip install 'lowtide[simulator]'" in ran.stderr
