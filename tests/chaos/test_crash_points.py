"""A process is killed at every place between two side effects, with calls of all kinds on their way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lowtide import failpoints
from tests.chaos.client import Client, Listener
from tests.chaos.conftest import client_app, started
from tests.chaos.deployment import Deployment
from tests.chaos.invariants import check, settled
from tests.plugins.stack import until

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(180)]
WAIT = 90.0

# What has to go wrong besides, so that a place is reached at all.
FAULTS = {"fetch.requeued": {"kind": "line_error", "status": 500, "count": 3}}
ALSO = {"adopt.deleted": "submit.intended"}
# Killing the whole worker loses what its main process holds: messages that are not acknowledged,
# what a tick has claimed. Elsewhere it is the same as killing the pool process.
WHOLE = (
    "tick.claimed",
    "accept.taken",
    "accept.appended",
    "seal.sealed",
    "submit.created",
    "fetch.requeued",
    "deliver.resumed",
    "deliver.continued",
    "tell.written",
    "tell.sent",
)
CASES = [(place, "process") for place in failpoints.PLACES if place != "tick.claimed"]
CASES += [(place, failpoints.WORKER) for place in WHOLE]


class Rig:
    """A deployment of one worker, its client, and the folder that arms places."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.armed = folder / "failpoints"
        self.armed.mkdir()
        env = {failpoints.VARIABLE: str(self.armed), "LOWTIDE_MAX_REQUESTS": "25"}
        self.deployment: Deployment = started(folder, env=env)
        self.client = Client(client_app(self.deployment.valkey.url, patch), seed=1)
        self.listener = Listener(self.deployment.redis)
        self.deployment.ready(self.client.app)

    def arm(self, place: str, how: str) -> Path:
        """Arms a place; returns the file that is there once it has fired."""
        fired = self.armed / (place + failpoints.FIRED)
        fired.unlink(missing_ok=True)
        (self.armed / place).write_text(how)
        return fired

    def send(self) -> None:
        for kind, count in {"plain": 6, "bad": 2, "chain": 1, "chord": 1, "steps": 2}.items():
            self.client.send(kind, count)
        self.client.send("twice")
        self.client.send("many")
        self.client.send("told", 2)

    def is_settled(self) -> bool:
        for worker in self.deployment.workers:
            if not worker.alive:
                worker.start()
        return settled(self.deployment, self.client)

    def stop(self) -> None:
        self.listener.stop()
        self.deployment.stop()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, patched: pytest.MonkeyPatch) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("crash"), patched)
    yield rig
    rig.stop()


def plan(rig: Rig, fault: dict[str, Any]) -> None:
    httpx2.post(f"{rig.deployment.provider.root}/simulator/faults", json=fault).raise_for_status()


@pytest.mark.parametrize(("place", "how"), CASES)
def test_a_process_killed_at(rig: Rig, place: str, how: str) -> None:
    if place in FAULTS:
        plan(rig, FAULTS[place])
    fired = rig.arm(place, how)
    if place in ALSO:
        rig.arm(ALSO[place], how)

    rig.send()

    until(lambda: fired.exists() or rig.is_settled(), f"{place} is reached", WAIT)
    assert fired.exists(), f"nobody came by {place}"
    try:
        until(rig.is_settled, "every call has its outcome, and nothing is left", WAIT)
    except AssertionError:
        verdict = check(rig.deployment, rig.client, rig.listener)
        told = [rig.deployment.said_about(each.split()[0]) for each in verdict.lost[:3]]
        pytest.fail(f"not settled: {verdict.violations}\n{told}\n{rig.deployment.logs()}")
    assert check(rig.deployment, rig.client, rig.listener).violations == {}
