"""Metrics: right whoever tells them, complete with a part away, and files that Prometheus takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families

from lowtide import control, metrics, runtime
from lowtide.calls import chat
from lowtide.clock import SimulatedClock
from lowtide.errors import LedgerUnavailable
from lowtide.held import LaneStatus
from lowtide.ledger import Ledger
from lowtide.request import Request, encode
from lowtide.settings import Thresholds
from tests.plugins.stack import ROOT
from tests.web.history import CHAT, deliver_batch, record_batch

CONFIG = ROOT / "config"


def make(redis_url: str, home: Path) -> runtime.Runtime:
    app = Celery(
        f"app-{uuid.uuid4().hex}", broker="memory://", backend=redis_url, set_as_current=False
    )
    app.conf.lowtide = {"redis_url": redis_url, "home": home, "max_wait": 100, "max_requests": 10}
    return runtime.of(app)


@pytest.fixture
def rt(redis_url: str, tmp_path: Path) -> runtime.Runtime:
    made = make(redis_url, tmp_path)
    made.ledger.create()
    return made


def values(rt: runtime.Runtime) -> dict[tuple[str, ...], float]:
    """(sample name, values of its labels by their names) → value."""
    text = metrics.render(rt).decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def fill(rt: runtime.Runtime, count: int) -> None:
    lane, body, tokens = encode(chat("hello", model=CHAT.model), account="default")
    rt.buffer.append(
        Request(f"t{n}.0.0", f"t{n}", "tasks.summarize", lane, body, b"", tokens)
        for n in range(count)
    )


def test_an_empty_deployment(rt) -> None:
    seen = values(rt)

    assert seen["lowtide_up", "redis"] == 1
    assert seen["lowtide_up", "ledger"] == 1
    assert seen[("lowtide_sealed_batches",)] == 0


@pytest.mark.parametrize(
    ("waits", "filled"),
    [
        ({"requests": 5}, 0.5),
        ({"size": 700}, 0.7),
        ({"tokens": 30}, 0.3),
        ({"opened_at": 960.0}, 0.4),
        ({"requests": 2, "size": 100, "tokens": 90, "opened_at": 990.0}, 0.9),
        ({"tokens": 250}, 1.0),
        ({"requests": 0, "size": 700}, 0.0),
    ],
)
def test_a_lane_is_as_full_as_the_threshold_that_it_is_nearest_to(
    waits: dict[str, Any], filled: float
) -> None:
    limits = Thresholds(max_requests=10, max_bytes=1_000, max_tokens=100, max_wait=100)
    lane = LaneStatus(CHAT.key, limits, **{"requests": 1, "opened_at": 1_000.0, **waits})

    assert metrics.fill(lane, 1_000.0) == pytest.approx(filled)


def test_buffers_timers_and_pauses(rt) -> None:
    fill(rt, 4)
    control.pause(rt, "default", "no money")

    seen = values(rt)

    assert seen["lowtide_lane_requests", CHAT.key] == 4
    assert seen["lowtide_lane_fill_ratio", CHAT.key] == pytest.approx(0.4, abs=0.02)
    assert seen["lowtide_paused", "default"] == 1
    assert seen[("lowtide_timers",)] == 1
    control.resume(rt, "default")
    rt.buffer.drop(rt.buffer.seal(CHAT.key, only_if_due=False))


def test_money_outcomes_and_times(rt) -> None:
    clock = SimulatedClock(rt.clock.now() - 10_000)
    ledger = Ledger(rt.settings.ledger_url, clock)
    ids = record_batch(ledger, "b1", requests=10, at=clock.now())
    deliver_batch(ledger, clock, "b1", ids, took=1000, failed=3)
    record_batch(ledger, "b2", requests=5, at=clock.now())
    ledger.close()

    seen = values(rt)

    assert seen["lowtide_outcomes_total", "answered", "tasks.summarize"] == 7
    assert seen["lowtide_outcomes_total", "failed", "tasks.summarize"] == 3
    assert seen["lowtide_cost_usd_total", "tasks.summarize"] == pytest.approx(7 * 0.0004)
    assert seen["lowtide_full_price_usd_total", "tasks.summarize"] == pytest.approx(7 * 0.0008)
    assert seen["lowtide_tokens_total", "output", "tasks.summarize"] == 7 * 150
    assert seen["lowtide_batch_requests", CHAT.key, "RECORDED"] == 5
    assert seen["lowtide_turnaround_seconds_bucket", CHAT.key, "900"] == 0
    assert seen["lowtide_turnaround_seconds_bucket", CHAT.key, "1800"] == 1
    assert seen["lowtide_turnaround_seconds_sum", CHAT.key] == pytest.approx(1000)
    assert seen["lowtide_delay_seconds_bucket", "+Inf", "tasks.summarize"] == 10
    assert seen["lowtide_open_batch_age_seconds", CHAT.key] > 8000


def test_every_process_tells_the_same(rt, redis_url, tmp_path) -> None:
    fill(rt, 2)
    other = make(redis_url, tmp_path)
    own = ("lowtide_lane_age_seconds", "lowtide_lane_fill_ratio", "lowtide_timers_late_seconds")

    def steady(found):
        return {key: value for key, value in found.items() if key[0] not in own}

    assert steady(values(other)) == steady(values(rt))
    rt.buffer.drop(rt.buffer.seal(CHAT.key, only_if_due=False))


def test_a_part_that_is_away_leaves_the_others(rt, monkeypatch) -> None:
    def away(_):
        raise LedgerUnavailable("it is away")

    monkeypatch.setattr("lowtide.ledger.Ledger.batch_counts", away)

    seen = values(rt)

    assert seen["lowtide_up", "ledger"] == 0
    assert seen["lowtide_up", "redis"] == 1
    assert ("lowtide_timers",) in seen


def test_the_ledger_is_not_asked_each_time(rt, monkeypatch) -> None:
    asked = []
    real = Ledger.batch_counts

    def counted(self):
        asked.append(1)
        return real(self)

    monkeypatch.setattr(Ledger, "batch_counts", counted)

    for _ in range(5):
        values(rt)

    assert len(asked) == 1


def test_alerts_and_dashboard_use_metrics_that_exist(rt) -> None:
    clock = SimulatedClock(rt.clock.now() - 10_000)
    ids = record_batch(rt.ledger, "b1", requests=1, at=clock.now())
    deliver_batch(rt.ledger, clock, "b1", ids, took=10)
    ledger_names = {family.name for family in metrics.LowtideCollector(rt).collect()}
    known = ledger_names | {
        f"{name}{end}" for name in ledger_names for end in ("_total", "_bucket")
    }

    text = (CONFIG / "alerts.yml").read_text() + (CONFIG / "grafana/lowtide.json").read_text()
    used = {word for word in _words(text) if word.startswith("lowtide_")}

    assert used
    assert used - known <= {"lowtide_web_token"}


def test_the_dashboard_is_one() -> None:
    board = json.loads((CONFIG / "grafana/lowtide.json").read_text())

    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert all(target["expr"] for panel in board["panels"] for target in panel["targets"])


@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "--syntax-only", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", str(Path(__file__).parent / "alerts.yml")],
    ],
)
def test_promtool_takes_the_files(command) -> None:
    done = subprocess.run([promtool(), *command], cwd=CONFIG, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_metrics(rt) -> None:
    tool = promtool()
    fill(rt, 1)

    done = subprocess.run([tool, "check", "metrics"], input=metrics.render(rt), capture_output=True)

    assert done.returncode == 0, done.stderr.decode()
    rt.buffer.drop(rt.buffer.seal(CHAT.key, only_if_due=False))


def promtool() -> str:
    tool = shutil.which("promtool")
    if tool is None and os.environ.get("CI") == "true":
        pytest.fail("promtool is not installed")
    if tool is None:
        pytest.skip("promtool is not installed")
    return tool


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "_" else " " for c in text).split()
