"""One deployment for all tests, with a worker that failpoints may kill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lowtide import failpoints, runtime
from lowtide.simulator import Steering
from tests.plugins.redis import started_redis
from tests.plugins.stack import Stack, client_of, deployment

MODULE = "tests.checks.app"


@dataclass
class Rig:
    """A worker with its provider, and a client's app."""

    stack: Stack
    steering: Steering
    client: Any
    places: Path

    @property
    def rt(self) -> runtime.Runtime:
        return runtime.of(self.client.app)

    def result(self, result: Any) -> Any:
        """What a call returned or raised."""
        try:
            return result.get(timeout=60, propagate=False)
        except Exception:
            raise AssertionError(self.stack.logs()) from None

    def sent(self, task_id: str) -> dict[str, int]:
        """Step → how often the provider was paid for it."""
        rows = self.steering.requests()
        mine = [row for row in rows if (row["custom_id"] or "").startswith(f"{task_id}.")]
        return {row["custom_id"].rsplit(".", 1)[1]: row["billed"] for row in mine}

    def killed_at(self, place: str) -> Path:
        """Arms a place; the file is there once a process was killed at it."""
        fired = self.places / (place + failpoints.FIRED)
        fired.unlink(missing_ok=True)
        (self.places / place).touch()
        return fired


@pytest.fixture(scope="package")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    redis = started_redis(tmp_path_factory.mktemp("redis"))
    with deployment(tmp_path_factory.mktemp("checks"), redis.url) as stack:
        places = tmp_path_factory.mktemp("places")
        # What a killed process held is free again soon.
        stack.env |= {"LOWTIDE_LEASE": "3s", failpoints.VARIABLE: str(places)}
        stack.worker(MODULE)
        client = client_of(MODULE)
        stack.ready(client.app)
        yield Rig(stack, Steering(stack.simulator.root), client, places)
    redis.stop()


@pytest.fixture(autouse=True)
def _no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "rig" in request.fixturenames:
        request.getfixturevalue("rig").steering.clear_faults()
