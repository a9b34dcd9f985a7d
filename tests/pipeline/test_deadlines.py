"""Calls that their deadline overtakes before their batch ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from celery.app.task import Context
from msgspec import structs

from lowtide import finality, finishing, quiet
from lowtide.deliver import deliver
from lowtide.envelope import Body, Envelope
from lowtide.errors import LedgerUnavailable, SettingsError
from lowtide.escalate import escalate
from lowtide.fetch import fetch
from lowtide.ledger import RequestState
from lowtide.ledger.tables import BATCHES
from lowtide.request import Request
from lowtide.resume import Resumed, Resumption
from lowtide.runtime import Runtime
from lowtide.submit import submit
from lowtide.sweep import sweep
from tests.pipeline.conftest import (
    Interfering,
    cannot_end,
    ended,
    known,
    requests,
    row_of,
    sealed,
)
from tests.plugins.stack import Simulator, until


def with_deadline(given: list[Request], at: float) -> list[Request]:
    return [structs.replace(request, deadline=at) for request in given]


def running(provider: Interfering) -> Callable[[], None]:
    """Lets the provider say that every batch still runs; returns how to stop that."""

    def still(found: dict[str, Any]) -> dict[str, Any]:
        return {k: dataclasses.replace(v, status="in_progress") for k, v in found.items()}

    provider.after["statuses"] = still

    def over() -> None:
        del provider.after["statuses"]

    return over


def overdue(rt: Runtime, count: int) -> list[Request]:
    """Requests at the provider that are to be escalated now, 20 seconds before their deadline."""
    body = Body.of((), {}, {}, "json")
    given = [
        structs.replace(each, envelope=Envelope.seal(Context({"id": each.task_id}), body).pack())
        for each in with_deadline(requests(count), rt.clock.now() + 20)
    ]
    submit(rt, sealed(rt, given))
    rt.ledger.postpone([request.custom_id for request in given], rt.clock.now() - 1)
    return given


class TestDeadlines:
    def test_a_late_call_is_answered_by_a_faster_service_and_paid_there(
        self, rt: Runtime, provider: Interfering, simulator: Simulator, told: dict[str, Any]
    ) -> None:
        (late,) = with_deadline(requests(1), rt.clock.now() + 20)
        (calm,) = requests(1)
        rt.settings.escalate_reserve = 1_000.0
        batch_id = sealed(rt, [late, calm])
        submit(rt, batch_id)
        again = running(provider)
        rt.ledger.postpone([late.custom_id], rt.clock.now() - 1)

        escalate(rt, "all", "w1")

        assert told.keys() == {late.task_id}
        assert told[late.task_id][0] == "/v1/chat/completions"
        row = row_of(rt, late)
        assert (row.state, row.tier) == (RequestState.DELIVERED, "standard")
        assert row.cost == pytest.approx(row.full_price)
        assert row.cost > 0
        # The batch answers it too, later: that is paid, booked, and told to nobody.
        again()
        ended(rt, batch_id)
        after = fetch(rt, batch_id)
        assert after is not None
        assert row_of(rt, late).wasted == pytest.approx(row.full_price / 2)
        assert rt.ledger.ids(batch_id) == {calm.custom_id}

    def test_flex_is_tried_first_when_there_is_time(
        self, rt: Runtime, provider: Interfering, told: dict[str, Any]
    ) -> None:
        (late,) = with_deadline(requests(1), rt.clock.now() + 600)
        batch_id = sealed(rt, [late])
        submit(rt, batch_id)
        rt.ledger.postpone([late.custom_id], rt.clock.now() - 1)

        escalate(rt, "all", "w1")

        row = row_of(rt, late)
        assert row.tier == "flex"
        assert row.cost == pytest.approx(row.full_price / 2)

    def test_a_call_that_is_not_sent_yet_leaves_its_batch(
        self, rt: Runtime, provider: Interfering, simulator: Simulator, told: dict[str, Any]
    ) -> None:
        from lowtide.recording import record

        (late,) = with_deadline(requests(1), rt.clock.now() + 20)
        batch_id = sealed(rt, [late])
        record(rt, batch_id)
        rt.ledger.postpone([late.custom_id], rt.clock.now() - 1)

        escalate(rt, "all", "w1")
        submit(rt, batch_id)

        batch = rt.ledger.batch(batch_id)
        assert batch is not None
        assert batch.state == "CANCELLED"
        assert row_of(rt, late).wasted is None

    @pytest.mark.parametrize("why", ["off", "passed"])
    def test_without_escalation_the_call_fails_with_its_deadline(
        self, rt: Runtime, provider: Interfering, told: dict[str, Any], why: str
    ) -> None:
        rt.settings.escalate = why != "off"
        (late,) = with_deadline(requests(1), rt.clock.now() - 1)
        batch_id = sealed(rt, [late])
        submit(rt, batch_id)

        escalate(rt, "all", "w1")

        error = told[late.task_id]
        assert type(error).__name__ == "DeadlineExceeded"
        assert error.details["lane"] == late.lane.key
        assert "run" not in provider.calls

    @pytest.mark.parametrize("cap", ["escalate_per_day", "spend_cap_day", "task_spend_caps"])
    def test_beyond_a_cap_nothing_is_escalated(
        self, rt: Runtime, provider: Interfering, told: dict[str, Any], cap: str
    ) -> None:
        setattr(rt.settings, cap, {"tests.task": 0.0} if cap == "task_spend_caps" else 0.0)
        (late,) = with_deadline(requests(1), rt.clock.now() + 20)
        batch_id = sealed(rt, [late])
        submit(rt, batch_id)
        rt.ledger.postpone([late.custom_id], rt.clock.now() - 1)

        after = escalate(rt, "all", "w1")

        assert told == {}
        assert "run" not in provider.calls
        assert after is not None
        assert after.at == pytest.approx(late.deadline, abs=1.5)

    def test_calls_of_tasks_that_this_worker_does_not_know_are_left_unpaid_and_hold_up_nobody(
        self,
        rt: Runtime,
        provider: Interfering,
        told: dict[str, Any],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(quiet, "_quiet_until", {})
        rt.settings.escalate_concurrency = 1
        (ours,) = with_deadline(requests(1), rt.clock.now() + 20)
        theirs = with_deadline(requests(6), rt.clock.now() + 20)
        theirs = [structs.replace(request, task="tests.elsewhere") for request in theirs]
        batch_id = sealed(rt, [ours, *theirs])
        submit(rt, batch_id)
        overdue = rt.clock.now() - 2 * rt.settings.lease
        rt.ledger.postpone([request.custom_id for request in theirs], overdue)
        rt.ledger.postpone([ours.custom_id], rt.clock.now() - 1)

        escalate(rt, "all", "w1")

        assert told.keys() == {ours.task_id}
        after = escalate(rt, "all", "w1")
        assert after is not None
        assert provider.calls.count("run") == 1
        (line,) = [each for each in caplog.messages if "deadline" in each]
        assert "tests.elsewhere" in line

        known(rt, "tests.elsewhere")
        escalate(rt, "all", "w1")
        escalate(rt, "all", "w1")
        assert told.keys() == {request.task_id for request in [ours, *theirs]}

    def test_calls_that_cannot_be_ended_do_not_keep_others_from_their_deadline(
        self, rt: Runtime, provider: Interfering, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known(rt, "tests.task")
        rt.settings.escalate_concurrency = 1
        rt.settings.retry_delay = 10.0
        given = with_deadline(requests(5), rt.clock.now() - 1)
        *stuck, fine = given
        batch_id = sealed(rt, given)
        submit(rt, batch_id)
        rt.ledger.postpone([request.custom_id for request in stuck], rt.clock.now() - 5)
        ended_tasks = set()

        def resume(_app: Any, items: list[Resumption], *_: Any, **__: Any) -> list[Resumed]:
            can = {item.custom_id for item in items} & {fine.custom_id}
            ended_tasks.update(can)
            return [
                Resumed(item.custom_id, "FAILURE" if item.custom_id in can else "AGAIN")
                for item in items
            ]

        monkeypatch.setattr(finishing, "resume", resume)

        for _ in range(2):
            escalate(rt, "all", "w1")

        assert ended_tasks == {fine.custom_id}

    @pytest.mark.parametrize("trouble", ["AGAIN", "UNKNOWN", "away"])
    def test_a_paid_answer_waits_for_its_task_and_is_asked_for_once(
        self,
        rt: Runtime,
        provider: Interfering,
        told: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
        trouble: str,
    ) -> None:
        (late,) = overdue(rt, 1)
        with monkeypatch.context() as patch:
            patch.setattr(finishing, "resume", cannot_end(trouble))
            escalate(rt, "all", "w1")
            rt.ledger.postpone([late.custom_id], rt.clock.now() - 1)
            escalate(rt, "all", "w1")
        assert row_of(rt, late).state == RequestState.RECORDED
        assert rt.ledger.paid([late.custom_id]).keys() == {late.custom_id}

        after = rt.clock.now() + 60
        monkeypatch.setattr(type(rt.clock), "now", lambda _self: after)
        escalate(rt, "all", "w1")

        assert isinstance(told[late.task_id], tuple), "a paid answer is no missed deadline"
        assert provider.calls.count("run") == 1
        row = row_of(rt, late)
        assert (row.state, row.tier, row.wasted) == (RequestState.DELIVERED, "standard", None)
        assert row.cost > 0
        assert rt.ledger.paid([late.custom_id]) == {}

    def test_a_paid_answer_that_came_after_the_batchs_is_wasted(
        self,
        rt: Runtime,
        provider: Interfering,
        told: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (late,) = overdue(rt, 1)
        with monkeypatch.context() as patch:
            patch.setattr(finishing, "resume", cannot_end("AGAIN"))
            escalate(rt, "all", "w1")
        batch_id = row_of(rt, late).batch_id
        ended(rt, batch_id)
        fetch(rt, batch_id)
        deliver(rt, batch_id, 0, "w1")
        assert row_of(rt, late).tier == "batch"

        escalate(rt, "all", "w1")
        escalate(rt, "all", "w1")

        assert row_of(rt, late).wasted == pytest.approx(row_of(rt, late).full_price)
        assert rt.ledger.paid([late.custom_id]) == {}
        assert len(told) == 1

    def test_nothing_is_asked_while_the_result_backend_is_away(
        self,
        rt: Runtime,
        provider: Interfering,
        told: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (late,) = overdue(rt, 1)

        def away(_tasks: Any) -> Any:
            raise ConnectionError("away")

        with monkeypatch.context() as patch:
            patch.setattr(finality, "stored", away)
            escalate(rt, "all", "w1")
        assert "run" not in provider.calls

        rt.ledger.postpone([late.custom_id], rt.clock.now() - 1)
        escalate(rt, "all", "w1")
        assert told.keys() == {late.task_id}

    def test_a_task_that_has_its_result_is_not_asked_for(
        self, rt: Runtime, provider: Interfering
    ) -> None:
        known(rt, "tests.task")
        (late,) = overdue(rt, 1)
        rt.app.backend.mark_as_done(late.task_id, "the batch's answer")

        escalate(rt, "all", "w1")

        assert "run" not in provider.calls
        assert row_of(rt, late).state == RequestState.DELIVERED

    def test_an_answer_that_cannot_be_noted_hurts_no_other_and_is_paid_once(
        self,
        rt: Runtime,
        provider: Interfering,
        told: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        given = overdue(rt, 4)
        works, fails = rt.ledger.settle, [1]

        def settle(*args: Any, **kwargs: Any) -> int:
            if fails:
                fails.pop()
                raise LedgerUnavailable("The ledger cannot be used: it is full; work waits.")
            return works(*args, **kwargs)

        monkeypatch.setattr(rt.ledger, "settle", settle)

        escalate(rt, "all", "w1")

        states = [row_of(rt, each).state for each in given]
        assert sorted(states) == ["DELIVERED"] * 3 + ["RECORDED"]
        told.clear()  # the result backend would say that it has the result
        rt.ledger.postpone([each.custom_id for each in given], rt.clock.now() - 1)
        escalate(rt, "all", "w1")
        assert {row_of(rt, each).state for each in given} == {RequestState.DELIVERED}
        assert all(row_of(rt, each).cost > 0 for each in given)
        assert provider.calls.count("run") == 4

    def test_an_answer_that_comes_after_its_claim_ran_out_is_written_by_nobody_late(
        self, rt: Runtime, provider: Interfering, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known(rt, "tests.task")
        rt.settings.lease = 0.2
        overdue(rt, 1)
        may = []

        def resume(
            _app: Any, items: list[Resumption], *_: Any, may_write: Any, **__: Any
        ) -> list[Resumed]:
            may.append(may_write())
            return [Resumed(item.custom_id, "AGAIN") for item in items]

        def away(*_: Any) -> int:
            raise LedgerUnavailable("The ledger cannot be used: it is away; work waits.")

        def slow(*_: Any, **__: Any) -> None:
            since = rt.clock.monotonic()
            until(lambda: rt.clock.monotonic() > since + 0.3, "the claim ran out")

        monkeypatch.setattr(finishing, "resume", resume)
        monkeypatch.setattr(rt.ledger, "extend", away)
        provider.before["run"] = slow

        escalate(rt, "all", "w1")

        assert may == [False]

    def test_an_account_that_is_no_longer_set_holds_up_no_other(
        self,
        rt: Runtime,
        provider: Interfering,
        told: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (theirs,), (ours,) = overdue(rt, 1), overdue(rt, 1)
        gone = row_of(rt, theirs).batch_id
        rt.ledger.postpone([theirs.custom_id], rt.clock.now() - 5)
        with rt.ledger._db.write() as connection:
            old = BATCHES.update().where(BATCHES.c.id == gone)
            connection.execute(old.values(account="old", lane="old:/v1/chat/completions:m"))

        def of_account(account: str) -> Interfering:
            if account == "old":
                raise SettingsError("No account is named 'old'; set LOWTIDE_ACCOUNTS.")
            return provider

        monkeypatch.setattr(rt, "provider", of_account)

        escalate(rt, "all", "w1")
        assert told.keys() == {ours.task_id}

        after = rt.clock.now() + 60
        monkeypatch.setattr(type(rt.clock), "now", lambda _self: after)
        escalate(rt, "all", "w1")
        assert type(told[theirs.task_id]).__name__ == "DeadlineExceeded"

    def test_recording_arms_the_escalation(self, rt: Runtime, provider: Interfering) -> None:
        deadline = rt.clock.now() + 1_000
        (late,) = with_deadline(requests(1), deadline)
        rt.settings.escalate_reserve = 100.0
        batch_id = sealed(rt, [late])
        submit(rt, batch_id)

        assert rt.timers.due_at("escalate", "all") == pytest.approx(deadline - 100, abs=1)

    def test_a_sooner_deadline_recorded_during_a_pass_is_not_armed_over(
        self, rt: Runtime, provider: Interfering, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = rt.clock.now()
        rt.app.finalize()
        later, sooner = (sealed(rt, with_deadline(requests(1), now + s)) for s in (21_600, 300))
        submit(rt, later)
        look = rt.ledger.next_escalation

        def looked() -> float | None:
            found = look()
            monkeypatch.setattr(rt.ledger, "next_escalation", look)
            submit(rt, sooner)  # by another replica, just after this one looked
            return found

        monkeypatch.setattr(rt.ledger, "next_escalation", looked)

        rt.app.tasks["lowtide.escalate"]("all")

        due = rt.timers.due_at("escalate", "all")
        assert due is not None
        assert due < now + 300

    def test_the_sweep_brings_forward_a_pass_that_is_armed_too_late(
        self, rt: Runtime, provider: Interfering
    ) -> None:
        now = rt.clock.now()
        submit(rt, sealed(rt, with_deadline(requests(1), now + 300)))
        rt.timers.arm("escalate", "all", now + 21_600)

        sweep(rt)

        due = rt.timers.due_at("escalate", "all")
        assert due is not None
        assert due < now + 300

    def test_a_near_deadline_seals_the_buffer_early(self, rt: Runtime) -> None:
        rt.settings.max_wait = 3_600.0
        (late,) = with_deadline(requests(1), rt.clock.now() + 100)
        rt.buffer.append([late])

        due = rt.timers.due_at("seal", late.lane.key)
        assert due is not None
        assert due - rt.clock.now() < 50
