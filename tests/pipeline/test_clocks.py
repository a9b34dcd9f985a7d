"""A replica whose clock is wrong, or stood still, harms no other."""

from __future__ import annotations

import pytest

from lowtide import bootstep
from lowtide.clock import SystemClock
from lowtide.errors import StateError
from lowtide.leases import claimed
from lowtide.runtime import Runtime
from lowtide.submit import submit
from lowtide.sweep import SWEEP_EVERY, sweep
from tests.pipeline.conftest import Interfering, billed, ended, requests, sealed
from tests.plugins.stack import Simulator

HOURS = 5 * 3600.0


class Ahead(SystemClock):
    """A wall clock that is ahead; the steady one is not."""

    by = HOURS

    def now(self) -> float:
        return super().now() + self.by


def test_a_sweep_that_a_clock_put_off_is_brought_forward(
    rt: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runtime, "send", lambda *_: None)
    right, rt.clock = rt.clock, Ahead()
    sweep(rt)
    rt.clock = right

    bootstep.tick(rt)

    due = rt.timers.due_at("sweep", "all")
    assert due == pytest.approx(right.now() + SWEEP_EVERY, abs=5.0)


def test_a_batch_whose_poll_a_clock_put_off_is_polled_within_the_hour(
    rt: Runtime, provider: Interfering
) -> None:
    batch_id = sealed(rt, requests(1))
    after = submit(rt, batch_id)
    assert after is not None
    assert after.at is not None
    rt.timers.arm("poll", batch_id, after.at + HOURS)

    sweep(rt)

    due = rt.timers.due_at("poll", batch_id)
    assert due == pytest.approx(rt.clock.now() + 3600.0, abs=5.0)


def test_a_claim_has_run_out_when_its_machine_slept(rt: Runtime, provider: Interfering) -> None:
    given = requests(1)
    batch_id = sealed(rt, given)
    submit(rt, batch_id)
    clock = Ahead()
    clock.by = 0.0
    rt.clock = clock

    with claimed(rt, batch_id, [given[0].custom_id]) as claim:
        assert claim.runs()
        clock.by = rt.settings.lease + 1.0
        assert not claim.runs()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_replica_that_is_hours_ahead_creates_no_second_batch(
    rt: Runtime, provider: Interfering, simulator: Simulator, when: str
) -> None:
    """To it the lease of who creates just now ran out long ago, and so did the wait."""
    given = requests(2)
    batch_id = sealed(rt, given)
    rt.settings.adopt_wait = 120.0
    right = rt.clock

    def overtake(*args: object, **_: object) -> object:
        provider.before.pop("create", None)
        provider.after.pop("create", None)
        rt.clock = rt.ledger._clock = Ahead()
        submit(rt, batch_id)
        rt.clock = rt.ledger._clock = right
        return args[0]

    getattr(provider, when)["create"] = overtake
    with pytest.raises(StateError):
        submit(rt, batch_id)

    ended(rt, batch_id)
    assert billed(simulator, given) == [1] * 2
