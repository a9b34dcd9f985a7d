"""Workers of one Redis that have a ledger each are told of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import Celery

from lowtide import keys, pulse, quiet, runtime
from lowtide.clock import SimulatedClock
from lowtide.doctor import celery_checks
from lowtide.pulse import Pulse
from lowtide.runtime import Runtime


def replica(url: str, home: Path) -> Runtime:
    app = Celery("ledgers", broker=url, backend=url, set_as_current=False)
    app.conf.lowtide = {"redis_url": url, "home": home}
    made = runtime.of(app)
    _ = made.ledger
    return made


@pytest.fixture(autouse=True)
def _spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "_quiet_until", {})


def test_two_ledgers_at_one_redis_are_told(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = replica(redis_url, tmp_path / "one"), replica(redis_url, tmp_path / "two")

    Pulse("w1@here").beat(one)
    assert caplog.text == ""
    Pulse("w2@here").beat(two)

    assert f"w1@here has the ledger {tmp_path}/one/ledger.db" in caplog.text
    [finding] = celery_checks.ledgers(two)
    assert "w1@here" in finding.detail
    assert "LOWTIDE_DATABASE_URL" in finding.advice


def test_the_doctor_in_another_folder_says_that_workers_look_elsewhere(
    redis_url: str, tmp_path: Path
) -> None:
    Pulse("w1@here").beat(replica(redis_url, tmp_path / "one"))
    app = Celery("other", broker=redis_url, backend=redis_url, set_as_current=False)
    app.conf.lowtide = {"redis_url": redis_url, "home": tmp_path / "never made"}

    [finding] = celery_checks.ledgers(runtime.of(app))

    assert "never made" in finding.detail


def test_one_ledger_by_two_ways_is_one(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = replica(redis_url, tmp_path / "one")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    Pulse("w1@here").beat(one)
    Pulse("w2@here").beat(replica(redis_url, tmp_path / "link"))

    assert caplog.text == ""
    assert celery_checks.ledgers(one) == []


def test_who_is_gone_is_not_told_of(redis_url: str, tmp_path: Path) -> None:
    one, two = replica(redis_url, tmp_path / "one"), replica(redis_url, tmp_path / "two")
    Pulse("w1@here").beat(one)

    two.clock = SimulatedClock(two.clock.now() + 61)

    assert pulse.other_ledgers(two) == {}


def test_who_is_gone_for_long_is_forgotten(redis_url: str, tmp_path: Path) -> None:
    one, two = replica(redis_url, tmp_path / "one"), replica(redis_url, tmp_path / "two")
    Pulse("w1@here").beat(one)

    two.clock = SimulatedClock(two.clock.now() + 3601)
    Pulse("w2@here").beat(two)

    assert set(two.redis.hgetall(keys.ledgers("lowtide"))) == {b"w2@here"}
