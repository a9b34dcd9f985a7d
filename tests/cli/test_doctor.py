"""`lowtide doctor`: each part well, each part broken, and what it says to do."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from lowtide import control
from lowtide.clock import SimulatedClock, SystemClock
from lowtide.connect import connect
from lowtide.doctor import (
    Finding,
    Level,
    celery_checks,
    examine,
    provider_checks,
    redis_checks,
    store_checks,
)
from lowtide.doctor.finding import good
from lowtide.embedded import EmbeddedRedis
from lowtide.ledger import Ledger
from lowtide.runtime import Runtime
from lowtide.task import BatchTask
from tests.cli.conftest import Command
from tests.plugins.redis import started_redis
from tests.plugins.stack import Stack, until

CLOSED = "redis://127.0.0.1:1/0"


def app_at(url: str, **conf: Any) -> Celery:
    made = Celery("doctor", broker=url, backend=url, set_as_current=False)
    made.conf.update(conf)
    return made


def runtime_at(url: str, tmp_path: Path, **conf: Any) -> Runtime:
    known = {"redis_url": url, "home": str(tmp_path)}
    return Runtime(app_at(url, lowtide={**known, **conf.pop("lowtide", {})}, **conf))


def part(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.part == name)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    server = started_redis(tmp_path / "own")
    yield server
    server.stop()


def has_tables(ledger: Path) -> bool:
    if not ledger.exists():
        return False
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        query = "SELECT count(*) FROM sqlite_master WHERE name = 'lowtide_outbox'"
        return bool(connection.execute(query).fetchone()[0])


def test_all_is_well_with_a_whole_deployment(stack: Stack) -> None:
    stack.worker("tests.integration.app", pool="solo")
    from tests.integration.app import app

    stack.ready(app)
    # It answers before it has made the tables.
    until(lambda: has_tables(Path(stack.env["LOWTIDE_HOME"]) / "ledger.db"), "there are tables")

    # A process of its own: here are shared tasks of other tests, which no worker knows.
    command = [sys.executable, "-m", "lowtide.cli", "doctor", "-A", "tests.integration.app"]
    ran = subprocess.run(
        [*command, "--json"], env={**os.environ, **stack.env}, capture_output=True, text=True
    )

    found = json.loads(ran.stdout)
    assert [f for f in found["findings"] if f["level"] == "failure"] == []
    assert found["ok"] is True
    assert ran.returncode == 0


def test_with_nothing_there_each_part_says_what_to_do(
    lowtide: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOWTIDE_REDIS_URL", CLOSED)
    ran = lowtide("doctor")
    assert ran.code == 1
    for line in ("✗ Broker", "✗ Redis", "✗ Result backend", "✗ Provider", "✗ Workers"):
        assert line in ran.out
    for advice in ("LOWTIDE_BROKER_URL", "LOWTIDE_REDIS_URL", "OPENAI_API_KEY"):
        assert advice in ran.out
    assert "Traceback" not in ran.out + ran.err


def test_one_broken_check_does_not_keep_the_others_from_being_made(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Runtime) -> list[Finding]:
        raise ZeroDivisionError("by zero")

    monkeypatch.setitem(examine.__globals__["CHECKS"], "Redis", broken)

    found = list(examine(runtime_at(redis_url, tmp_path)))

    assert part(found, "Redis").detail == "ZeroDivisionError: by zero"
    assert part(found, "Clocks").level is Level.OK


class TestRedis:
    def findings(self, url: str, tmp_path: Path) -> list[Finding]:
        return redis_checks.redis(runtime_at(url, tmp_path))

    def test_append_only_is_good(self, redis_url: str, tmp_path: Path) -> None:
        found = self.findings(redis_url, tmp_path)
        assert {finding.level for finding in found} == {Level.OK}

    def test_snapshots_alone_are_a_risk(self, own_redis: EmbeddedRedis, tmp_path: Path) -> None:
        client = connect(own_redis.url)
        client.config_set("appendonly", "no")
        client.config_set("save", "60 1000")
        found = part(self.findings(own_redis.url, tmp_path), "Redis persistence")
        assert found.level is Level.WARNING
        assert "appendonly yes" in found.advice

    def test_no_persistence_is_a_failure(self, own_redis: EmbeddedRedis, tmp_path: Path) -> None:
        client = connect(own_redis.url)
        client.config_set("appendonly", "no")
        client.config_set("save", "")
        found = part(self.findings(own_redis.url, tmp_path), "Redis persistence")
        assert found.level is Level.FAILURE

    def test_works_where_config_is_forbidden(
        self, own_redis: EmbeddedRedis, tmp_path: Path
    ) -> None:
        client = connect(own_redis.url)
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-config")
        url = own_redis.url.replace("redis://", "redis://app:pw@")
        found = self.findings(url, tmp_path)
        assert part(found, "Redis persistence").level is Level.OK
        assert "pw" not in part(found, "Redis").detail

    def test_forbidden_scripts_are_a_failure(
        self, own_redis: EmbeddedRedis, tmp_path: Path
    ) -> None:
        client = connect(own_redis.url)
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-eval")
        url = own_redis.url.replace("redis://", "redis://app:pw@")
        assert part(self.findings(url, tmp_path), "Redis scripts").level is Level.FAILURE

    def test_eviction_is_a_failure(self, own_redis: EmbeddedRedis, tmp_path: Path) -> None:
        client = connect(own_redis.url)
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        found = part(self.findings(own_redis.url, tmp_path), "Redis memory")
        assert found.level is Level.FAILURE
        assert "noeviction" in found.advice

    @pytest.mark.parametrize(
        ("version", "level"), [("6.0.16", Level.FAILURE), ("6.2.0", Level.OK), ("7.4", Level.OK)]
    )
    def test_oldest_version(self, version: str, level: Level) -> None:
        found = redis_checks._version("redis://h", {"redis_version": version})
        assert found.level is level


class TestResults:
    @pytest.mark.parametrize(
        ("conf", "level"),
        [
            ({}, Level.WARNING),
            ({"result_expires": 3600}, Level.WARNING),
            ({"result_expires": timedelta(days=7)}, Level.OK),
            ({"result_expires": 0}, Level.OK),
            ({"result_expires": 3600, "result_chord_expires": 3600}, Level.FAILURE),
        ],
    )
    def test_expiry(
        self, conf: dict[str, Any], level: Level, redis_url: str, tmp_path: Path
    ) -> None:
        rt = runtime_at(redis_url, tmp_path, **{"result_chord_expires": 14 * 86400, **conf})
        assert part(celery_checks.results(rt), "Result expiry").level is level

    def test_forbidden_scripts_are_a_failure(
        self, own_redis: EmbeddedRedis, redis_url: str, tmp_path: Path
    ) -> None:
        client = connect(own_redis.url)
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-eval")
        url = own_redis.url.replace("redis://", "redis://app:pw@")
        for backend, level in ((redis_url, Level.OK), (url, Level.FAILURE)):
            rt = runtime_at(redis_url, tmp_path, result_backend=backend)
            assert part(celery_checks.results(rt), "Result scripts").level is level

    def test_none_is_a_risk(self, redis_url: str, tmp_path: Path) -> None:
        rt = Runtime(Celery("none", broker=redis_url, set_as_current=False))
        (found,) = celery_checks.results(rt)
        assert found.level is Level.WARNING


class TestPaused:
    def test_a_suspended_account_is_a_failure_and_a_pause_by_hand_a_risk(
        self, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(provider_checks, "_account", lambda *_: good("Provider", "works"))
        rt = runtime_at(redis_url, tmp_path)
        control.suspend(rt, "default", "There is no key.")
        control.pause(rt, "eu", "too dear")

        found = {each.detail: each for each in provider_checks.providers(rt)[1:]}

        assert [each.level for each in found.values()] == [Level.FAILURE, Level.WARNING]
        assert "the provider refuses it: There is no key." in next(iter(found))
        assert all(
            f"`lowtide resume {name}`" in each.advice
            for name, each in zip(("default", "eu"), found.values(), strict=True)
        )
        connect(redis_url).flushdb()


class TestWorkers:
    def test_a_worker_of_another_app_that_takes_our_calls_is_a_failure(
        self, redis_url: str, tmp_path: Path
    ) -> None:
        rt = runtime_at(redis_url, tmp_path)

        @rt.app.task(name="ours.ask", base=BatchTask, model="gpt-5-mini")
        def ask(text: str) -> str:
            return text

        queues: dict[str, list[Mapping[str, Any]]] = {
            "mine@h": [{"name": "celery"}],
            "other@h": [{"name": "celery"}],
            "apart@h": [],
        }
        mine = [f"{name} [rate_limit=1/s]" for name in rt.app.tasks]
        registered = {"mine@h": mine, "other@h": ["theirs"], "apart@h": []}

        (found,) = celery_checks._strangers(rt, queues, registered)

        assert found.level is Level.FAILURE
        assert found.detail.startswith("other@h takes calls from the queue 'celery'")
        assert "such calls fail" in found.detail


def test_a_setting_that_cannot_be_used_is_told_once(redis_url: str, tmp_path: Path) -> None:
    (found,) = examine(runtime_at(redis_url, tmp_path, lowtide={"max_wait": "10x"}))
    assert (found.part, found.level) == ("Settings", Level.FAILURE)
    assert "LOWTIDE_MAX_WAIT" in found.detail


class TestDatabase:
    def test_a_ledger_of_a_newer_release_is_a_failure(self, redis_url: str, tmp_path: Path) -> None:
        rt = runtime_at(redis_url, tmp_path)
        ledger = Ledger(rt.settings.ledger_url, SystemClock())
        ledger.create()
        with ledger._db.write() as connection:
            connection.exec_driver_sql("UPDATE lowtide_version SET version_num = '9999'")
        (found,) = store_checks.database(rt)
        assert found.level is Level.FAILURE
        assert "newer release" in found.detail

    def test_one_that_is_not_there_yet_is_made_by_nobody_who_only_looks(
        self, redis_url: str, tmp_path: Path
    ) -> None:
        (found,) = store_checks.database(runtime_at(redis_url, tmp_path))
        assert found.level is Level.OK
        assert not (tmp_path / "ledger.db").exists()

    def test_postgresql_is_asked_for_its_time(
        self, redis_url: str, postgres_url: str, tmp_path: Path
    ) -> None:
        rt = runtime_at(redis_url, tmp_path, lowtide={"database_url": postgres_url})
        (found,) = store_checks.clocks(rt)
        assert found.level is Level.OK
        assert "the database" in found.detail


def test_a_clock_that_is_off_is_a_failure(redis_url: str, tmp_path: Path) -> None:
    rt = Runtime(app_at(redis_url, lowtide={"redis_url": redis_url}), SimulatedClock())
    (found,) = store_checks.clocks(rt)
    assert found.level is Level.FAILURE
    assert "Redis is +" in found.detail
