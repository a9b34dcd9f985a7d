"""How far the calls are: read from lowtide's own books, shown as bars or as plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lowtide.ledger.rows import BatchRow
from lowtide.runtime import Runtime
from lowtide.shown import duration

_BATCHES = 10_000


@dataclass(frozen=True, slots=True)
class Stage:
    """One step on the way of the calls: how many requests have taken it, in how many batches."""

    name: str
    requests: int
    batches: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far all calls are.

    Attributes:
        total: Calls that were made.
        stages: In the order that a call takes them.
        expected_end: Epoch seconds of the last answer, None while nobody can tell.
        reasons: Why batches are not sent, each once.
    """

    total: int
    stages: tuple[Stage, ...]
    expected_end: float | None
    reasons: tuple[str, ...] = ()


def read(runtime: Runtime, total: int, turnaround: float | None) -> Snapshot:
    """Looks into buffers and ledger.

    Args:
        total: Calls that were made.
        turnaround: Seconds that a batch takes where nothing was learned about its lane yet.
    """
    waiting = sum(lane.requests for lane in runtime.buffer.lanes())
    cut = runtime.buffer.sealed()
    sealed = sum(batch.requests for batch in cut)
    requests = runtime.ledger.totals().requests
    batches = runtime.ledger.batches(limit=_BATCHES)
    open_states = {"RECORDED", "CLAIMED"}
    recorded = sum(requests.values())
    done = sum(count for state, count in requests.items() if str(state) not in open_states)

    def stage(name: str, reached: Callable[[BatchRow], object]) -> Stage:
        there = [batch for batch in batches if reached(batch)]
        return Stage(name, min(sum(batch.requests for batch in there), total), len(there))

    kept = {batch.reason: None for batch in batches if batch.reason and not batch.submitted_at}
    ends = [_expected_end(batch, turnaround) for batch in batches if not batch.ended_at]
    return Snapshot(
        total,
        (
            Stage("accepted", min(waiting + sealed + recorded, total)),
            Stage("sealed", min(sealed + recorded, total), len(cut) + len(batches)),
            stage("sent", lambda batch: batch.submitted_at),
            stage("ended", lambda batch: batch.ended_at),
            Stage("delivered", min(done, total)),
        ),
        max((end for end in ends if end is not None), default=None),
        tuple(kept),
    )


def _expected_end(batch: BatchRow, turnaround: float | None) -> float | None:
    if batch.expected_end is not None:
        return batch.expected_end
    started = batch.submitted_at or time.time()
    return None if turnaround is None else started + turnaround


class Progress:
    """Shows snapshots: bars that move on a terminal, otherwise a line when something changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._last: tuple[object, ...] = ()
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, now: Snapshot) -> None:
        """Shows how far the calls are."""
        if self._live is not None:
            self._live.update(self._bars(now), refresh=True)
        elif (now.stages, now.reasons) != self._last:
            self._console.print(_line(now), soft_wrap=True)
        self._last = (now.stages, now.reasons)

    def _bars(self, now: Snapshot) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for stage in now.stages:
            done = stage.requests >= now.total
            table.add_row(
                f"  {stage.name}",
                ProgressBar(total=now.total, completed=stage.requests, width=40),
                Text(f"{stage.requests:>5} / {now.total}", style="green" if done else ""),
                _batches(stage),
            )
        seconds = time.monotonic() - self._started
        so_far = Text(f"  {seconds:.0f} s so far{_expected(now)}", style="dim")
        reasons = (Text(f"  not sent: {reason}", style="yellow") for reason in now.reasons)
        return Group(table, so_far, *reasons)


def _line(now: Snapshot) -> str:
    parts = []
    for stage in now.stages:
        there = _batches(stage)
        parts.append(f"{stage.name} {stage.requests}" + (f" ({there})" if there else ""))
    clock = time.strftime("%H:%M:%S")
    reasons = "".join(f"; not sent: {reason}" for reason in now.reasons)
    return f"{clock}  of {now.total}: {', '.join(parts)}{_expected(now)}{reasons}"


def _batches(stage: Stage) -> str:
    if not stage.batches:
        return ""
    return "in 1 batch" if stage.batches == 1 else f"in {stage.batches} batches"


def _expected(now: Snapshot) -> str:
    if now.stages[-2].requests >= now.total:  # all have ended, what is left takes no time
        return ""
    if now.reasons and now.expected_end is None:
        return ""
    if now.expected_end is None:
        return "; answers come within 24 hours"
    left = max(0.0, now.expected_end - time.time())
    clock = time.strftime("%H:%M:%S", time.localtime(now.expected_end))
    return f"; end expected at {clock}, in {duration(left)}"
