"""The demo's calls: made, watched until every answer is there, and collected."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from celery.result import AsyncResult
from rich.console import Console

from lowtide.errors import LowtideError
from lowtide.ledger import BatchRow, CostRow
from lowtide.runtime import Runtime
from lowtide.runtime import of as runtime_of
from tasks.summarize import summarize
from worker.app import app
from worker.demo import report
from worker.demo.progress import Progress, read
from worker.demo.remembered import remember, remembered
from worker.demo.texts import Description
from worker.stack import Plan
from worker.supervisor import Supervisor

_BOOKED_WITHIN = 30.0
_PATIENCE = 120.0
Calls = dict[str, AsyncResult]
"""The result to come by package."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a run.

    Attributes:
        results: Summary, or the exception in its place, by package.
        batches: In the order in which they were recorded.
        costs: What each batch cost, by our batch id.
        total: What all of it cost.
    """

    results: Mapping[str, object]
    batches: Sequence[BatchRow]
    costs: Mapping[str, CostRow]
    total: CostRow

    @property
    def failed(self) -> bool:
        """Whether a text has no summary."""
        return any(isinstance(result, Exception) for result in self.results.values())

    def show(
        self, console: Console, texts: Sequence[Description], *, every: bool, simulated: bool
    ) -> None:
        """Prints answers, batches and money."""
        report.answers(console, texts, self.results, every=every)
        report.batches(console, self.batches, self.costs)
        report.money(console, self.total, simulated=simulated)


def work(
    console: Console, texts: Sequence[Description], kept: Path, plan: Plan, supervisor: Supervisor
) -> Done:
    """Runs the main job through a stack that is up.

    Args:
        kept: Where task ids are noted.

    Raises:
        Stopped: The end was asked for.
        LowtideError: Nothing moves any more.
    """
    runtime = runtime_of(app)
    calls: Calls = {}
    try:
        _make(calls, texts, kept, supervisor.check)
        with Progress(console) as progress:
            _follow(runtime, calls, plan, supervisor, progress)
        return Done(
            results={name: call.get(timeout=30, propagate=False) for name, call in calls.items()},
            batches=runtime.ledger.batches()[::-1],
            costs={row.key: row for row in runtime.ledger.costs(by="batch")},
            total=runtime.ledger.totals().money,
        )
    finally:
        # A pending result that is dropped tells its backend, which is gone when the stack is.
        calls.clear()


def _make(
    calls: Calls, texts: Sequence[Description], kept: Path, check: Callable[[], None]
) -> None:
    """Calls `summarize` for every text that an earlier run has not called it for."""
    known = remembered(kept)
    for text in texts:
        check()
        if text.package in known:
            calls[text.package] = app.AsyncResult(known[text.package])
        else:
            calls[text.package] = summarize.delay(text.text)
            remember(kept, text.package, calls[text.package].id)


def _follow(
    runtime: Runtime, calls: Calls, plan: Plan, supervisor: Supervisor, progress: Progress
) -> None:
    """Shows how far the calls are until each has a result and is booked."""
    turnaround = plan.turnaround if plan.simulated else None
    waiting = list(calls)
    before, changed = None, time.monotonic()
    booked_by: float | None = None
    while True:
        supervisor.wait(0.25 if plan.simulated else 2.0)
        waiting = [package for package in waiting if not calls[package].ready()]
        now = read(runtime, len(calls), turnaround)
        progress.show(now)
        if not waiting:
            # A result is there a moment before the ledger notes what it cost.
            booked_by = booked_by or time.monotonic() + _BOOKED_WITHIN
            if now.stages[-1].requests >= now.total or time.monotonic() > booked_by:
                return
        if now.stages != before:
            before, changed = now.stages, time.monotonic()
        elif plan.simulated and time.monotonic() - changed > _PATIENCE:
            raise LowtideError(f"Nothing has moved for {_PATIENCE:.0f} s.")
