"""Turnaround, the clock, and the pure decisions over both."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.simulator.clock import VirtualClock
from lowtide.simulator.lifecycle import Do, decide
from lowtide.simulator.records import BatchRecord
from lowtide.simulator.turnaround import parse, seconds

NOON = 12 * 3600.0


@pytest.mark.parametrize(
    ("text", "value"),
    [("30s", 30), ("1h30m", 5400), ("250ms", 0.25), ("2d", 172800), ("7", 7), (1.5, 1.5), ("0", 0)],
)
def test_durations(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "-3", -1, math.inf])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="duration"):
        seconds(text)


@given(seed=st.integers(), low=st.floats(0, 1e5), more=st.floats(0, 1e5))
def test_uniform_stays_between_its_bounds(seed, low, more):
    drawn = parse(f"uniform:{low:.3f},{low + more:.3f}").draw(random.Random(seed), NOON)
    assert low - 0.001 <= drawn <= low + more + 0.001


def test_lognormal_has_its_median_and_a_tail():
    rng = random.Random(5)
    drawn = [parse("lognormal:30m,0.8").draw(rng, NOON) for _ in range(4000)]
    assert statistics.median(drawn) == pytest.approx(1800, rel=0.1)
    assert max(drawn) > 5 * 1800


def test_hours_of_the_day():
    turnaround = parse("hours:0-7=10m;8-18=2h;else=1h")
    rng = random.Random(0)
    drawn = [turnaround.draw(rng, hour * 3600.0) for hour in (0, 7, 8, 18, 19, 23, 24)]
    assert drawn == [600, 600, 7200, 7200, 3600, 3600, 600]


@pytest.mark.parametrize("spec", ["uniform:5", "hours:1-2", "lognormal:1m", "soon"])
def test_what_is_no_turnaround(spec):
    with pytest.raises(ValueError, match=r"expected|duration"):
        parse(spec)


def test_the_clock_freezes_moves_and_runs_on():
    real = [100.0]
    clock = VirtualClock(real=lambda: real[0])
    real[0] = 101.0
    assert clock.now() == 101.0
    clock.freeze()
    real[0] = 200.0
    assert clock.now() == 101.0
    assert clock.advance(50) == 151.0
    clock.run()
    real[0] = 201.0
    assert clock.now() == 152.0
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1)
    again = VirtualClock(*clock.state, real=lambda: real[0])
    assert again.now() == 152.0


def record(**more):
    return BatchRecord("batch_1", "org", "/v1/responses", "file-1", created_at=1000.0, **more)


RUNNING = {"status": "in_progress", "in_progress_at": 1000.0, "total": 10, "working_s": 100.0}
TABLE = [
    (record(validating_s=5), 1004, Do.WAIT, 1005),
    (record(validating_s=5), 1005, Do.VALIDATE, 1005),
    (record(validating_s=5), 9999, Do.VALIDATE, 1005),
    (record(validating_s=5, cancel_at=1003), 1003, Do.CANCEL, 1003),
    (record(validating_s=5, cancel_at=1006), 1006, Do.VALIDATE, 1005),
    (record(**RUNNING), 1001, Do.WAIT, 1006),
    (record(**RUNNING), 1050, Do.WORK, 1050),
    (record(**RUNNING, done=5), 1050, Do.WAIT, 1055),
    (record(**RUNNING, done=10), 1100, Do.FINALIZE, 1100),
    (record(**RUNNING, done=5, cancel_at=1050), 1050, Do.CANCEL, 1050),
    (record(**RUNNING, done=5, cancel_at=1080), 1090, Do.WORK, 1080),
    (record(**RUNNING, quirks={"stuck": 0.5}, done=5), 2000, Do.WAIT, 2005),
    (record(**RUNNING, quirks={"stuck": 0.5}, done=5), 1000 + 86400, Do.EXPIRE, 1000 + 86400),
    (record(status="finalizing", finalizing_at=1100.0, finalizing_s=9), 1105, Do.WAIT, 1109),
    (record(status="finalizing", finalizing_at=1100.0, finalizing_s=9), 1109, Do.COMPLETE, 1109),
    (record(status="finalizing", finalizing_at=1100.0, finalizing_s=9, cancel_at=1105), 1105, Do.CANCEL, 1105),
    (record(status="cancelling", cancelling_at=1100.0, cancelling_s=60), 1130, Do.WAIT, 1160),
    (record(status="cancelling", cancelling_at=1100.0, cancelling_s=60), 1160, Do.CLOSE, 1160),
]  # fmt: skip


@pytest.mark.parametrize(("batch", "now", "do", "at"), TABLE)
def test_what_a_batch_has_to_do(batch, now, do, at):
    step = decide(batch, float(now))
    assert (step.do, step.at) == (do, at)


@given(
    working=st.floats(0, 1e5),
    total=st.integers(1, 500),
    jumps=st.lists(st.floats(0, 2e4), max_size=20),
)
def test_work_never_goes_back_and_never_beyond_its_end(working, total, jumps):
    batch = record(status="in_progress", in_progress_at=1000.0, total=total, working_s=working)
    now = 1000.0
    for jump in jumps:
        now += jump
        step = decide(batch, now)
        assert step.at <= 1000.0 + 86400.0 or step.do is Do.WAIT
        if step.do is Do.WORK:
            assert batch.done < step.lines <= total
            batch.done = step.lines
        elif step.do is not Do.WAIT:
            assert (step.do is Do.FINALIZE) == (working <= 86400.0)
            return
