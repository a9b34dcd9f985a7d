"""Commands that look at lanes, batches, tasks and money, and those that act on them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lowtide.buffer import Buffer
from lowtide.clock import SimulatedClock, SystemClock
from lowtide.connect import connect
from lowtide.lane import Lane
from lowtide.ledger import Attempt, Ledger, NewMessage
from lowtide.settings import load
from tests.cli.conftest import Command
from tests.cli.test_commands import LANE, waiting
from tests.web.history import deliver_batch, record_batch

pytestmark = pytest.mark.leaves_keys("*")
DONE, OPEN = "b-done", "b-open"


@pytest.fixture
def past(deployment: str, tmp_path: Path) -> None:
    """A batch of four that was delivered, one request failed; and one that waits to be sent."""
    clock = SimulatedClock()
    ledger = Ledger(load().ledger_url, clock)
    ledger.create()
    ids = record_batch(ledger, DONE, requests=4, at=clock.now())
    deliver_batch(ledger, clock, DONE, ids, took=600, failed=1)
    record_batch(ledger, OPEN, requests=2, at=clock.now())
    ledger.close()


def told(lowtide: Command, *words: str) -> Any:
    ran = lowtide(*words, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


class TestLook:
    def test_batches_are_listed_the_last_first(self, lowtide: Command, past: None) -> None:
        assert [row["id"] for row in told(lowtide, "batches")] == [OPEN, DONE]
        assert [row["id"] for row in told(lowtide, "batches", "--state", "delivered")] == [DONE]
        assert [row["id"] for row in told(lowtide, "batches", "--limit", "1")] == [OPEN]
        shown = lowtide("batches").out
        assert "DELIVERED" in shown
        assert "gpt-5-mini" in shown

    def test_a_state_that_there_is_not_is_a_usage_error(self, lowtide: Command, past: None) -> None:
        assert lowtide("batches", "--state", "lost").code == 2

    @pytest.mark.parametrize("name", [DONE, f"batch_{DONE}"], ids=["ours", "the provider's"])
    def test_one_batch_by_either_id(self, lowtide: Command, past: None, name: str) -> None:
        found = told(lowtide, "batch", name)
        assert found["id"] == DONE
        counts = {(each["state"], each["count"]) for each in found["outcomes"]}
        assert counts == {("DELIVERED", 3), ("FAILED", 1)}
        assert found["money"]["saving"] == pytest.approx(0.0012)

        shown = lowtide("batch", name).out
        for words in ("DELIVERED", "submitted", "+10 min", "The prompt is refused.", "$0.0012"):
            assert words in shown

    def test_an_unknown_batch_is_one_line(self, lowtide: Command, past: None) -> None:
        ran = lowtide("batch", "b-none")
        assert ran.code == 1
        assert ran.err == (
            "lowtide: The ledger has no batch b-none; `lowtide batches` lists them.\n"
        )

    def test_one_task(self, lowtide: Command, past: None) -> None:
        found = told(lowtide, "task", f"{DONE}-0")
        (request,) = found["requests"]
        assert (request["state"], request["error_code"]) == ("FAILED", "invalid_prompt")
        assert "The prompt is refused." in lowtide("task", f"{DONE}-0").out
        assert lowtide("task", "nobody").code == 1

    def test_the_attempts_of_a_task(self, lowtide: Command, past: None) -> None:
        ledger = Ledger(load().ledger_url, SimulatedClock())
        ids = sorted(ledger.ids(OPEN))
        failed = Attempt(60.0, OPEN, "batch_1", 429, "rate_limit_exceeded", "Slow down.")
        ledger.requeue(OPEN, ids[:1], reason="429", failed={ids[0]: failed})
        ledger.close()

        (request,) = told(lowtide, "task", f"{OPEN}-0")["requests"]
        assert [each["code"] for each in request["attempts"]] == ["rate_limit_exceeded"]
        shown = lowtide("task", f"{OPEN}-0").out
        assert "1. 1970-01-01T00:01:00Z in batch_1: 429 rate_limit_exceeded (Slow down)" in shown
        assert "had no answer before" not in lowtide("task", f"{OPEN}-1").out

    def test_of_calls_that_share_a_line_one_pays(self, lowtide: Command, deployment: str) -> None:
        clock = SimulatedClock()
        ledger = Ledger(load().ledger_url, clock)
        ledger.create()
        ids = record_batch(ledger, "b-twins", requests=3, at=clock.now(), share_key="k")
        deliver_batch(ledger, clock, "b-twins", ids, took=60)
        ledger.close()

        shown = [lowtide("task", f"b-twins-{n}").out for n in range(3)]

        assert ["shared" in each for each in shown] == [False, True, True]
        assert ["$0" in each for each in shown] == [True, False, False]
        (row,) = told(lowtide, "costs")
        assert (row["requests"], row["answered"]) == (3, 3)
        assert row["cost"] == pytest.approx(
            told(lowtide, "task", "b-twins-0")["requests"][0]["cost"]
        )

    def test_a_task_that_waits(self, lowtide: Command, deployment: str) -> None:
        waiting(deployment, 3)
        assert told(lowtide, "task", "gpt-5-mini-1")["where"]["state"] == "BUFFERED"
        assert "BUFFERED in batch" in lowtide("task", "gpt-5-mini-1").out

    def test_costs(self, lowtide: Command, past: None) -> None:
        (row,) = told(lowtide, "costs")
        assert (row["key"], row["answered"], row["failed"]) == ("tasks.summarize", 3, 1)
        (row,) = told(lowtide, "costs", "--by", "day")
        assert row["key"] == "2023-11-14"
        assert told(lowtide, "costs", "--since", "1d") == []
        assert "tasks.summarize" in lowtide("costs").out
        assert lowtide("costs", "--since", "soon").code == 2

    def test_lanes(self, lowtide: Command, deployment: str) -> None:
        waiting(deployment, 3)
        (lane,) = told(lowtide, "lanes")
        assert (lane["lane"], lane["requests"], lane["paused"]) == (LANE.key, 3, None)


class TestNarrow:
    """A terminal of 80 columns: names are whole, and reasons are below in full."""

    REASON = "the provider refuses it: You exceeded your current quota, please check your plan."

    @pytest.fixture(autouse=True)
    def _narrow(self, lowtide: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")

    def test_paused_lanes(self, lowtide: Command, deployment: str) -> None:
        other = Lane("eu", "/v1/responses", "gpt-5", "acme")
        waiting(deployment, 3)
        waiting(deployment, 2, other)
        lowtide("pause", "default", "--reason", self.REASON)

        for words in ("lanes", "status"):
            lines = lowtide(words).out.splitlines()

            assert LANE.key in lines
            assert other.key in lines
            assert max(map(len, lines)) <= 80
            numbers = lines[lines.index(LANE.key) + 1].strip()
            assert numbers.startswith("waiting: 3, of: 50,000, size: ")
            assert numbers.endswith("sealed: paused")
            assert f"default is paused: {self.REASON}" in " ".join(" ".join(lines).split())

    def test_a_lane_that_has_room_stands_in_a_table(
        self, lowtide: Command, deployment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "120")
        waiting(deployment, 3)
        (row,) = [line for line in lowtide("lanes").out.splitlines() if LANE.key in line]
        assert re.fullmatch(rf" {LANE.key} +3 +50,000 +\d+ bytes +21 +in \d+ (s|min) *", row)

    def test_held_batches(self, lowtide: Command, deployment: str) -> None:
        clock = SimulatedClock()
        ledger = Ledger(load().ledger_url, clock)
        ledger.create()
        held = [f"{number}{'0' * 31}" for number in range(5)]
        for batch_id in held:
            record_batch(ledger, batch_id, at=clock.now())
            lease = ledger.lease(batch_id, "test", 60)
            assert lease is not None
            reason = "no room" if batch_id == held[0] else self.REASON
            ledger.move(lease, "HELD", reason=reason)
        ledger.close()

        for words in ("batches", "status"):
            lines = lowtide(words).out.splitlines()

            assert sum(batch_id in line for batch_id in held for line in lines) >= len(held)
            assert max(map(len, lines)) <= 80
            said = " ".join(" ".join(lines).split())
            assert f"{held[0]}: no room" in said
            assert re.search(rf"\w{{32}}, \w{{32}}, \w{{32}} and 1 more: {self.REASON}", said)


class TestAct:
    def test_pause_by_model_and_resume(self, lowtide: Command, deployment: str) -> None:
        waiting(deployment, 3)

        ran = lowtide("pause", "gpt-5-mini", "--reason", "too dear")

        assert ran.code == 0
        assert told(lowtide, "lanes")[0]["paused"] == "too dear"
        assert "paused: too dear" in lowtide("lanes").out
        assert lowtide("resume", LANE.key).out == f"{LANE.key} goes on.\n"
        assert told(lowtide, "lanes")[0]["paused"] is None

    def test_pause_of_an_account_holds_its_lanes(self, lowtide: Command, deployment: str) -> None:
        waiting(deployment, 3)
        lowtide("pause", "default")
        assert told(lowtide, "lanes")[0]["paused"] == "by hand"

    def test_what_was_done_is_told_as_json(
        self, lowtide: Command, past: None, deployment: str, redis: Any
    ) -> None:
        waiting(deployment, 3)
        reason = ("--reason", "too dear")
        paused = {"paused": [LANE.key], "reason": "too dear"}
        assert told(lowtide, "pause", "gpt-5-mini", *reason) == paused
        assert told(lowtide, "resume", LANE.key) == {"resumed": [LANE.key]}
        assert told(lowtide, "retry", OPEN) == {"batch": OPEN, "step": "submit"}
        assert told(lowtide, "cancel", OPEN) == {"batch": OPEN, "revoked": 2}

    def test_what_is_not_there_is_one_line(self, lowtide: Command, deployment: str) -> None:
        assert "No lane, model or account" in lowtide("pause", "gpt-9").err
        ran = lowtide("resume", "default")
        assert ran.code == 1
        assert ran.err == "lowtide: default is not paused; paused is: nothing.\n"

    def test_retry_sends_the_next_step(self, lowtide: Command, past: None, redis: Any) -> None:
        ran = lowtide("retry", OPEN)
        assert ran.code == 0, ran.err
        assert ran.out == f"submit of {OPEN} is sent to the workers.\n"
        assert redis.llen("lowtide") == 1

    def test_retry_of_one_at_its_end_is_one_line(self, lowtide: Command, past: None) -> None:
        ran = lowtide("retry", DONE)
        assert ran.code == 1
        assert "DELIVERED, which is its end" in ran.err

    def test_cancel_revokes_its_tasks(self, lowtide: Command, past: None) -> None:
        ran = lowtide("cancel", OPEN)
        assert ran.code == 0, ran.err
        assert ran.out.startswith("2 tasks are revoked")
        assert lowtide("cancel", DONE).code == 1

    def test_flush_leaves_a_batch_for_the_workers(
        self, lowtide: Command, deployment: str, redis: Any
    ) -> None:
        waiting(deployment, 2)
        lowtide("flush")
        assert redis.llen("lowtide") == 1
        assert Buffer(connect(deployment), load(), SystemClock()).lanes()[0].requests == 0


class TestPurge:
    def test_old_batches_go_and_what_is_open_stays(self, lowtide: Command, past: None) -> None:
        ran = lowtide("purge", "--older", "14d")
        assert (ran.code, ran.out) == (0, "1 batches with 4 requests are deleted.\n")
        assert [row["id"] for row in told(lowtide, "batches")] == [OPEN]
        assert told(lowtide, "purge", "--older", "14d") == {"batches": 0, "requests": 0, "kept": 0}

    def test_what_is_still_to_be_told_stays_and_is_named(
        self, lowtide: Command, past: None
    ) -> None:
        ledger = Ledger(load().ledger_url, SystemClock())
        ledger.post([NewMessage("crm", "x.0.0", b"told", DONE)])
        ledger.close()

        ran = lowtide("purge", "--older", "14d")
        assert ran.out.startswith("0 batches with 0 requests are deleted.\n1 as old stay")
        assert {row["id"] for row in told(lowtide, "batches")} == {OPEN, DONE}

    @pytest.mark.parametrize("older", ["47h", "soon"])
    def test_what_may_be_sent_once_more_is_not_deleted(
        self, lowtide: Command, past: None, older: str
    ) -> None:
        ran = lowtide("purge", "--older", older)

        assert ran.code == 2
        assert older in ran.err
        assert {row["id"] for row in told(lowtide, "batches")} == {OPEN, DONE}
