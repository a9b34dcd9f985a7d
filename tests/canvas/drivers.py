"""What answers the requests of the canvas tests: a stand-in, or the whole pipeline."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Protocol

from celery import Celery

from lowtide.simulator.steering import Steering
from tests.canvas import fake_runtime
from tests.plugins.stack import Simulator


class Driver(Protocol):
    """Answers what the workers accept."""

    name: str
    env: dict[str, str]

    def start(self, app: Celery, redis: Any) -> None: ...
    def stop(self) -> None: ...

    def hold(self) -> None:
        """From now on what is accepted is not answered."""

    def release(self) -> None:
        """What was held is answered."""


class FakeDriver:
    """Sends `canvas.fan_out` whenever something waits."""

    name = "fake"

    def __init__(self) -> None:
        self.env = {"CANVAS_DRIVER": "fake"}
        self._held = threading.Event()
        self._stopped = threading.Event()

    def start(self, app: Celery, redis: Any) -> None:
        self.app, self.redis = app, redis
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def hold(self) -> None:
        self._held.set()

    def release(self) -> None:
        self._held.clear()

    def again(self) -> None:
        """Lets the oldest request that waits be answered twice more, in one slice."""
        waiting = self.redis.lindex(fake_runtime.PENDING, 0)
        self.redis.rpush(fake_runtime.PENDING, waiting, waiting)

    def _pump(self) -> None:
        while not self._stopped.wait(0.02):
            if not self._held.is_set() and self.redis.llen(fake_runtime.PENDING):
                self.app.send_task("canvas.fan_out", ignore_result=True)


class PipelineDriver:
    """Buffers, ledger, simulator and all that is between."""

    name = "pipeline"

    def __init__(self, folder: Path, redis_url: str) -> None:
        self._simulator = Simulator(folder)
        self._steering = Steering(self._simulator.root)
        self.env = {
            "CANVAS_DRIVER": "pipeline",
            "OPENAI_API_KEY": "simulator",
            "OPENAI_BASE_URL": self._simulator.base_url,
            "LOWTIDE_REDIS_URL": redis_url,
            "LOWTIDE_HOME": str(folder / "home"),
            "LOWTIDE_MAX_WAIT": "0.1s",
            "LOWTIDE_TICK": "0.05s",
            "LOWTIDE_POLL_MIN": "0.1s",
            "LOWTIDE_RETRY_DELAY": "0.2s",
        }

    def start(self, app: Celery, redis: Any) -> None:
        """Nothing: the worker's own ticking drives it."""

    def stop(self) -> None:
        self._simulator.stop()

    def hold(self) -> None:
        self._steering.turnaround(working="1h")

    def release(self) -> None:
        self._steering.turnaround(working=0)
        self._steering.advance("2h")


def make(name: str, folder: Path, redis_url: str) -> Any:
    return FakeDriver() if name == "fake" else PipelineDriver(folder, redis_url)
