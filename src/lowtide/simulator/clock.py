"""The simulator's clock: real time plus an offset, and it can stand still.

Tests move it by hand (``POST /simulator/clock``), so that a day passes in a millisecond.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class VirtualClock:
    """Wall time in Unix seconds (float), shifted and optionally frozen. Thread-safe.

    Args:
        offset: seconds added to real time.
        frozen_at: when not None the clock stands at this Unix time until it is moved.
        real: the source of real time; tests pass their own.
    """

    def __init__(
        self,
        offset: float = 0.0,
        frozen_at: float | None = None,
        real: Callable[[], float] = time.time,
    ) -> None:
        self._lock = threading.Lock()
        self._real = real
        self._offset = offset
        self._frozen_at = frozen_at

    def now(self) -> float:
        """The simulator's present, Unix seconds."""
        with self._lock:
            return self._now()

    @property
    def frozen(self) -> bool:
        """Does the clock stand still?"""
        return self._frozen_at is not None

    @property
    def state(self) -> tuple[float, float | None]:
        """``(offset, frozen_at)``, all that has to be kept to go on after a restart."""
        with self._lock:
            return self._offset, self._frozen_at

    def advance(self, seconds: float) -> float:
        """Move forward and return the new time.

        Raises:
            ValueError: for a negative number, which would undo history.
        """
        if seconds < 0:
            raise ValueError("the clock only goes forward")
        with self._lock:
            if self._frozen_at is not None:
                self._frozen_at += seconds
            else:
                self._offset += seconds
            return self._now()

    def freeze(self) -> None:
        """Stand still at the present."""
        with self._lock:
            self._frozen_at = self._now()

    def run(self) -> None:
        """Go on from where the clock stands."""
        with self._lock:
            self._offset = self._now() - self._real()
            self._frozen_at = None

    def _now(self) -> float:
        return self._frozen_at if self._frozen_at is not None else self._real() + self._offset
