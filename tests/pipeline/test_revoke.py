"""Calls that are revoked before their batch ends."""

from __future__ import annotations

from typing import Any

import pytest
from celery.worker import state
from msgspec import structs
from redis.exceptions import ConnectionError as RedisAway

from lowtide import bootstep, finishing
from lowtide.buffer import Buffer
from lowtide.fetch import fetch
from lowtide.leases import claimed
from lowtide.ledger import RequestState
from lowtide.revoke import revoke
from lowtide.runtime import Runtime
from lowtide.submit import submit
from lowtide.sweep import sweep
from lowtide.timers import Timers
from tests.pipeline.conftest import (
    Interfering,
    billed,
    cannot_end,
    ended,
    known,
    requests,
    row_of,
    sealed,
)
from tests.plugins.stack import Simulator, until


class TestRevoke:
    def test_a_request_in_an_open_buffer_leaves_it_and_is_never_sent(
        self, rt: Runtime, provider: Interfering, simulator: Simulator, told: dict[str, Any]
    ) -> None:
        stays, goes = requests(2)
        rt.buffer.append([stays, goes])

        assert revoke(rt, [goes.task_id], "w1") == {}

        assert told == {goes.task_id: "REVOKED"}
        assert row_of(rt, goes).state == RequestState.REVOKED
        batch_id = rt.buffer.seal(stays.lane.key, only_if_due=False)
        assert batch_id is not None
        submit(rt, batch_id)
        ended(rt, batch_id)
        assert billed(simulator, [stays, goes]) == [1, 0]

    def test_a_request_that_is_recorded_leaves_its_batch(
        self, rt: Runtime, provider: Interfering, simulator: Simulator, told: dict[str, Any]
    ) -> None:
        from lowtide.recording import record

        stays, goes = requests(2)
        batch_id = sealed(rt, [stays, goes])
        record(rt, batch_id)

        revoke(rt, [goes.task_id], "w1")
        submit(rt, batch_id)
        ended(rt, batch_id)

        assert told == {goes.task_id: "REVOKED"}
        assert billed(simulator, [stays, goes]) == [1, 0]

    def test_a_batch_that_nobody_waits_for_is_cancelled(
        self, rt: Runtime, provider: Interfering, told: dict[str, Any]
    ) -> None:
        given = requests(2)
        batch_id = sealed(rt, given)
        submit(rt, batch_id)

        revoke(rt, [given[0].task_id], "w1")
        assert "cancel" not in provider.calls
        revoke(rt, [given[1].task_id], "w1")
        assert provider.calls.count("cancel") == 1

    def test_what_was_answered_all_the_same_is_booked_as_wasted(
        self, rt: Runtime, provider: Interfering, told: dict[str, Any]
    ) -> None:
        stays, goes = requests(2)
        batch_id = sealed(rt, [stays, goes])
        submit(rt, batch_id)
        ended(rt, batch_id)
        revoke(rt, [goes.task_id], "w1")

        fetch(rt, batch_id)
        fetch(rt, batch_id)

        assert row_of(rt, goes).wasted > 0
        (costs,) = rt.ledger.costs("tenant")
        assert costs.wasted == pytest.approx(row_of(rt, goes).wasted)

    def test_one_between_buffer_and_ledger_is_named_for_another_try(
        self, rt: Runtime, provider: Interfering, told: dict[str, Any]
    ) -> None:
        given = requests(1)
        sealed(rt, given)

        again = revoke(rt, [given[0].task_id], "w1")

        assert again == {given[0].task_id: pytest.approx(rt.clock.now() + rt.settings.tick, abs=1)}
        assert told == {}

    def test_one_that_another_worker_has_to_end_is_tried_again_until_it_is_revoked(
        self, rt: Runtime, provider: Interfering, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (given,) = requests(1)
        submit(rt, sealed(rt, [given]))
        known(rt, "tests.task")
        rt.app.finalize()

        def passed_on(ending: str) -> float | None:
            monkeypatch.setattr(finishing, "resume", cannot_end(ending))
            rt.app.tasks["lowtide.revoke"](given.task_id)
            return rt.timers.due_at("revoke", given.task_id)

        for ending in ("UNKNOWN", "AGAIN"):
            assert passed_on(ending) is not None
            assert row_of(rt, given).state == RequestState.RECORDED
        with claimed(rt, row_of(rt, given).batch_id, [given.custom_id]) as claim:
            assert passed_on("REVOKED") is not None, "another replica holds it"
        rt.ledger.unclaim([given.custom_id], claim.token)
        assert passed_on("REVOKED") is None
        assert row_of(rt, given).state == RequestState.REVOKED

    def test_one_whose_buffer_is_sealed_meanwhile_is_tried_again(
        self,
        rt: Runtime,
        provider: Interfering,
        told: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (given,) = requests(1)
        rt.buffer.append([given])
        peek = Buffer.peek

        def sealed_first(buffer: Buffer, lane: str, *args: Any) -> Any:
            assert buffer.seal(lane, only_if_due=False) is not None
            return peek(buffer, lane, *args)

        monkeypatch.setattr(Buffer, "peek", sealed_first)

        assert revoke(rt, [given.task_id], "w1").keys() == {given.task_id}
        assert told == {}

    @pytest.mark.parametrize("away", ["connect", "arm"])
    def test_a_revoke_that_redis_could_not_take_is_passed_on_at_the_next_tick(
        self, rt: Runtime, monkeypatch: pytest.MonkeyPatch, away: str
    ) -> None:
        (given,) = requests(1)
        rt.buffer.append([given])
        sent: list[tuple[Any, ...]] = []
        monkeypatch.setattr(rt, "send", lambda *step: sent.append(step))
        revokes = bootstep.Revokes()
        revokes.pass_on(rt)
        monkeypatch.setattr(state, "revoked", {given.task_id})

        def gone(*_: Any, **__: Any) -> Any:
            raise RedisAway("away")

        with monkeypatch.context() as patch:
            if away == "connect":
                patch.setattr(bootstep, "connect", gone)
            else:
                patch.setattr(Timers, "arm", gone)
            with pytest.raises(RedisAway):
                revokes.pass_on(rt)
        assert sent == []

        assert revokes.pass_on(rt) == 1
        assert revokes.pass_on(rt) == 0
        assert sent == [("revoke", [given.task_id])]

    def test_a_stranger_is_left_alone(
        self, rt: Runtime, provider: Interfering, told: dict[str, Any]
    ) -> None:
        assert revoke(rt, ["no-such-task"], "w1") == {}

    def test_a_replica_that_dies_after_recording_loses_nothing(
        self, rt: Runtime, provider: Interfering, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (given,) = requests(1)
        rt.buffer.append([given])
        monkeypatch.setattr("lowtide.revoke.finish", _die)
        with pytest.raises(KeyboardInterrupt):
            revoke(rt, [given.task_id], "w1")

        sweep(rt)

        row = row_of(rt, given)
        assert row.state == RequestState.RECORDED
        assert rt.timers.due_at("submit", row.batch_id) is not None


def _die(*_args: Any, **_kwargs: Any) -> None:
    raise KeyboardInterrupt


def test_a_line_is_named_rightly_after_others_left_the_batch(
    rt: Runtime, provider: Interfering, told: dict[str, Any]
) -> None:
    """The provider counts the lines that were sent, not those that are still waited for."""
    given = sorted(requests(4), key=lambda request: request.custom_id)
    bad = structs.replace(given[2], body=given[2].body[:-1] + b',"stream":true}')
    batch_id = sealed(rt, [given[0], given[1], bad, given[3]])
    submit(rt, batch_id)
    revoke(rt, [given[0].task_id], "w1")
    until(lambda: provider.status(_remote(rt, batch_id)).ended, "validation failed")
    ended(rt, batch_id)

    after = fetch(rt, batch_id)

    assert after is not None
    from lowtide import outcomes

    (failed,) = outcomes.unpack(rt.slices.get(batch_id, 0) or b"")
    assert failed.custom_id == bad.custom_id


def _remote(rt: Runtime, batch_id: str) -> str:
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    return str(batch.provider_batch_id)
