"""A worker that is told to stop finishes what it does, or hands it over at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial

import pytest

from tests.faults.conftest import Bench
from tests.plugins.stack import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
# Nothing that is left behind comes back within the test by itself.
LONG = {"LOWTIDE_LEASE": "30m", "TEST_VISIBILITY": "1800"}
STAGES: dict[str, Callable[[Bench], bool]] = {
    "calls wait in buffers": lambda here: bool(here.client.expected),
    "batches are on their way": lambda here: bool(here.states()),
    "answers come back": lambda here: bool(here.states() & {"ENDED", "FETCHED"}),
}


def test_terminated_at_any_time(bench: Callable[..., Bench]) -> None:
    here = bench(env=LONG, workers=2, simulator=("--delay", "0.5s"))

    for turn, (what, reached) in enumerate(STAGES.items()):
        here.client.send("plain", 150)
        here.client.send("steps", 10)
        until(partial(reached, here), what)
        worker = here.deployment.workers[turn % 2]
        assert worker.process is not None
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(60) == 0, what
        worker.start()

    assert here.settle().violations == {}
