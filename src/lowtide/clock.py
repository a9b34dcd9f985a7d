"""Time as a parameter: wall time for what is stored, monotonic time for waits."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where the current time comes from; tests pass a `SimulatedClock`."""

    def now(self) -> float:
        """Seconds since the epoch, UTC. For what is stored and compared across replicas."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards. For waits within one process."""
        ...

    def sleep(self, seconds: float) -> None:
        """Waits `seconds`."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class SimulatedClock:
    """A clock that moves only when told to.

    Args:
        start: Seconds since the epoch that `now()` gives at first.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Moves time forward by `seconds`, which must not be negative."""
        if seconds < 0:
            raise ValueError("time does not run backwards")
        self._now += seconds
