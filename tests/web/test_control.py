"""Flush, pause, cancel and retry with real workers; a table sent through them, stopped and resumed."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from lowtide import control, runtime
from lowtide.errors import StateError
from lowtide.tables import Plan, Run
from tests.plugins.stack import Simulator, Stack, client_of, until

pytestmark = pytest.mark.slow
MODULE = "tests.integration.app"
LANE = "default:/v1/chat/completions:gpt-5-mini"


@pytest.fixture
def shop(stack: Stack):
    return client_of(MODULE)


@pytest.fixture
def slow_provider(stack: Stack, monkeypatch, tmp_path):
    """A simulator whose batches take an hour."""
    folder = tmp_path / "slow"
    folder.mkdir()
    simulator = Simulator(folder, "--delay", "1h")
    stack.env["OPENAI_BASE_URL"] = simulator.base_url
    monkeypatch.setenv("OPENAI_BASE_URL", simulator.base_url)
    yield simulator
    simulator.stop()


def test_what_is_paused_waits_and_then_goes(stack: Stack, shop) -> None:
    rt = runtime.of(shop.app)
    stack.worker(MODULE)
    stack.ready(shop.app)
    control.pause(rt, LANE, "tested")

    result = shop.summarize.delay("The tide is low.")
    until(lambda: result.state not in ("PENDING", "RECEIVED"), "the call is accepted")
    control.flush(rt, LANE)
    held = until(
        lambda: next(iter(rt.ledger.find_batches(states=("HELD",))), None), "its batch is held"
    )
    sent = stack.simulator.report()["requests"]
    assert control.resume(rt, LANE)

    assert sent == []
    assert "tested" in str(held.reason)
    assert result.get(timeout=60) == "The tide is low."


def test_a_cancelled_batch_revokes_its_tasks(stack: Stack, shop, slow_provider) -> None:
    rt = runtime.of(shop.app)
    stack.worker(MODULE)
    stack.ready(shop.app)
    results = [shop.summarize.delay(f"Wave {n} rolls.") for n in range(5)]
    batch = until(
        lambda: next(iter(rt.ledger.find_batches(states=("SUBMITTED",))), None), "it is submitted"
    )

    revoked = control.cancel(rt, batch.id)

    assert revoked == len(results)
    try:
        until(lambda: {result.state for result in results} == {"REVOKED"}, "all are revoked")
        until(lambda: not rt.ledger.undelivered(batch.id), "no request is left")
        until(lambda: _final(rt, batch.id), "it is closed")
    except AssertionError:
        raise AssertionError(stack.logs()) from None
    with pytest.raises(StateError, match="nothing left to cancel"):
        control.cancel(rt, batch.id)
    with pytest.raises(StateError, match="nothing to try again"):
        control.retry(rt, batch.id)


def test_a_table_that_is_stopped_goes_on_and_is_paid_once(stack: Stack, shop, tmp_path) -> None:
    stack.worker(MODULE)
    stack.ready(shop.app)
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    rows = [f"Parcel {n} is at sea." for n in range(1_200)]
    source.write_text("text\n" + "\n".join(rows) + "\n")
    plan = Plan(task="shop.summarize", column="text", options={"max_words": 9})
    over = threading.Event()
    first = Run.of_command(tmp_path / "runs", source, plan, out)

    stopped = first.go(shop.app, lambda progress: over.set(), over)
    # As a crash between sending rows and noting it would leave it.
    first._store.note(upto=0)
    first.close()
    second = Run.of_command(tmp_path / "runs", source, plan, out)
    progress = second.go(shop.app)

    assert stopped.sent == 500
    assert (progress.answered, progress.failed) == (1_200, 0)
    assert second.write(out) == 1_200
    assert out.read_text("utf-8-sig").splitlines()[1:] == [f"{row},{row}," for row in rows]
    second.close()
    requests = stack.simulator.report()["requests"]
    assert len(requests) == 1_200
    assert Counter(row["billed"] for row in requests) == {1: 1_200}


def _final(rt: runtime.Runtime, batch_id: str) -> bool:
    batch = rt.ledger.batch(batch_id)
    return batch is not None and batch.state in ("DELIVERED", "CANCELLED")
