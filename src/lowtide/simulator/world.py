"""One simulator: its parts put together, and its way from start to stop."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from lowtide.simulator import chaos
from lowtide.simulator.answers import Answerer, BuiltIn
from lowtide.simulator.clock import VirtualClock
from lowtide.simulator.engine import Engine, Parts
from lowtide.simulator.faults import Faults
from lowtide.simulator.files import FileShelf
from lowtide.simulator.hooks import Hooks
from lowtide.simulator.records import BatchRecord
from lowtide.simulator.services import SERVICES, Service
from lowtide.simulator.settings import KNOWN_MODELS, Limits, SimulatorSettings
from lowtide.simulator.store import Store
from lowtide.simulator.turnaround import Turnaround
from lowtide.simulator.upstream import Upstream

_CLOCK = "clock"


class World:
    """Everything that a simulator is apart from HTTP.

    Args:
        settings: what it is told; with ``state=None`` it lives in a temporary directory, which
            ``stop`` removes.
    """

    def __init__(self, settings: SimulatorSettings) -> None:
        if settings.upstream and settings.models == KNOWN_MODELS:
            settings = replace(settings, models=("*",))  # the server behind knows its own
        self.service = SERVICES[settings.service]
        settings = replace(settings, limits=_limits(settings.limits, self.service))
        self.settings = settings
        self._temporary = None
        if settings.state is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="lowtide-simulator-")
        root = Path(self._temporary.name if self._temporary else str(settings.state))
        self.root = root
        self.shelf = FileShelf(root / "files")
        self.store = Store(root / "simulator.db")
        self.clock = VirtualClock(*(self.store.get_meta(_CLOCK) or (0.0, None)))
        self.answerer = _answerer(settings)
        configured = [*settings.faults, *chaos.rules(settings.chaos)]
        self.faults = Faults(self.store, settings.seed, configured)
        self.hooks = Hooks(self.store, self.clock, self.faults)
        self.engine = Engine(
            Parts(
                settings, self.clock, self.store, self.shelf, self.answerer, self.faults, self.hooks
            )
        )

    def start(self) -> None:
        """Go on where the last run stopped, however it did."""
        self.shelf.remove_strays()
        self._add_configured_hook()
        self.engine.start()
        self.hooks.start()

    def stop(self) -> None:
        """End all threads and give everything back."""
        self.engine.stop()
        self.hooks.stop()
        self.store.close()
        if self._temporary:
            self._temporary.cleanup()

    def quirks(self, batch: BatchRecord) -> dict[str, Any]:
        """The faults that hold for a whole new batch."""
        subject = f"{batch.endpoint} {orjson.dumps(batch.metadata).decode()}"
        return {**self.service.quirks, **self.faults.batch(subject)}

    def set_turnaround(self, **phases: Turnaround) -> None:
        """Change how long the phases of *new* batches take: ``working=...`` and so on."""
        self.settings = replace(self.settings, **phases)  # type: ignore[arg-type]

    def _add_configured_hook(self) -> None:
        url = self.settings.webhook_url
        if url and all(hook.url != url for hook in self.hooks.endpoints()):
            account = self.settings.accounts[0].name
            self.hooks.add(url, (), self.settings.webhook_secret, account)

    def keep_clock(self) -> None:
        """Write down where the clock stands, for a restart."""
        self.store.set_meta(_CLOCK, list(self.clock.state))

    def moved(self) -> bool:
        """The clock has moved: do all that is due; False when that takes over a minute."""
        self.keep_clock()
        settled = self.engine.settle()
        self.hooks.wake()
        return settled

    def clock_state(self) -> dict[str, Any]:
        """The clock as the admin API shows it."""
        offset, _ = self.clock.state
        return {"now": self.clock.now(), "frozen": self.clock.frozen, "offset": offset}


def _limits(limits: Limits, service: Service) -> Limits:
    """The service's own limits, where they have not been set."""
    own = {"max_requests": service.max_requests, "max_bytes": service.max_bytes}
    usual = Limits()
    return replace(
        limits,
        **{
            name: value
            for name, value in own.items()
            if value is not None and getattr(limits, name) == getattr(usual, name)
        },
    )


def _answerer(settings: SimulatorSettings) -> Answerer:
    if settings.upstream:
        return Upstream(settings.upstream, settings.upstream_key)
    return BuiltIn(settings.models)
