"""One simulator: its parts put together, and its way from start to stop."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lowtide.simulator.answers import Answerer, BuiltIn
from lowtide.simulator.clock import VirtualClock
from lowtide.simulator.engine import Engine, Parts
from lowtide.simulator.files import FileShelf
from lowtide.simulator.records import BatchRecord
from lowtide.simulator.settings import SimulatorSettings
from lowtide.simulator.store import Store

_CLOCK = "clock"


class Faultless:
    """No line fails."""

    def refuse(self, custom_id: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Nothing is refused."""
        del custom_id, body
        return None

    def mangle(self, custom_id: str, line: dict[str, Any]) -> list[dict[str, Any]]:
        """Every line is written as it is."""
        del custom_id
        return [line]


class Unheard:
    """Nobody hears of a batch's end."""

    def note(self, db: sqlite3.Connection, batch: BatchRecord, at: float) -> None:
        """Nothing follows."""

    def wake(self) -> None:
        """Nothing to wake."""


class World:
    """Everything that a simulator is apart from HTTP.

    Args:
        settings: what it is told; with ``state=None`` it lives in a temporary directory, which
            ``stop`` removes.
    """

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self._temporary = None
        if settings.state is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="lowtide-simulator-")
        root = Path(self._temporary.name if self._temporary else str(settings.state))
        self.root = root
        self.shelf = FileShelf(root / "files")
        self.store = Store(root / "simulator.db")
        self.clock = VirtualClock(*(self.store.get_meta(_CLOCK) or (0.0, None)))
        self.answerer: Answerer = BuiltIn(settings.models)
        self.faults = Faultless()
        self.hooks = Unheard()
        self.engine = Engine(
            Parts(
                settings, self.clock, self.store, self.shelf, self.answerer, self.faults, self.hooks
            )
        )

    def start(self) -> None:
        """Go on where the last run stopped, however it did."""
        self.shelf.remove_strays()
        self.engine.start()

    def stop(self) -> None:
        """End all threads and give everything back."""
        self.engine.stop()
        self.store.close()
        if self._temporary:
            self._temporary.cleanup()

    def quirks(self, batch: BatchRecord) -> dict[str, Any]:
        """The faults that hold for a whole new batch."""
        del batch
        return {}

    def keep_clock(self) -> None:
        """Write down where the clock stands, for a restart."""
        self.store.set_meta(_CLOCK, list(self.clock.state))

    def clock_state(self) -> dict[str, Any]:
        """The clock as the admin API shows it."""
        offset, _ = self.clock.state
        return {"now": self.clock.now(), "frozen": self.clock.frozen, "offset": offset}
