"""`lowtide status`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lowtide.cli.context import AppOption, JsonOption, console, print_json, runtime
from lowtide.held import LaneStatus
from lowtide.ledger import OPEN, BatchRow, Totals
from lowtide.runtime import Runtime
from lowtide.shown import dollars, duration, megabytes

_MOST_BATCHES = 50


def status(
    app: AppOption = None,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing, each second.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show what waits, what is at the provider, what came back, and what it cost."""
    rt = runtime(app)
    if json:
        print_json(_data(rt))
        return
    out = console()
    if not watch:
        out.print(_view(rt))
        return
    with Live(_view(rt), console=out, screen=out.is_terminal, auto_refresh=False) as live:
        while True:
            rt.clock.sleep(1.0)
            live.update(_view(rt), refresh=True)


def _data(rt: Runtime) -> dict[str, Any]:
    totals = rt.ledger.totals()
    return {
        "lanes": [asdict(lane) for lane in _lanes(rt)],
        "sealed": [asdict(batch) for batch in rt.buffer.sealed()],
        "batches": [asdict(batch) for batch in rt.ledger.batches(OPEN, _MOST_BATCHES)],
        "totals": {
            "batches": totals.batches,
            "requests": totals.requests,
            "money": asdict(totals.money),
        },
    }


def _lanes(rt: Runtime) -> list[LaneStatus]:
    return sorted(rt.buffer.lanes(), key=lambda lane: lane.lane)


def _view(rt: Runtime) -> RenderableType:
    return Group(
        _lane_table(_lanes(rt), rt.clock.now()),
        _batch_table(rt.ledger.batches(OPEN, _MOST_BATCHES), rt.clock.now()),
        _summary(rt.ledger.totals()),
    )


def _table(title: str, left: Mapping[str, int | None], right: Iterable[str]) -> Table:
    """An empty table.

    Args:
        left: Columns of text with the width at which they are cut; None = wrapped.
        right: Columns of numbers.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name, width in left.items():
        table.add_column(name, max_width=width, no_wrap=width is not None, overflow="ellipsis")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _lane_table(lanes: list[LaneStatus], now: float) -> RenderableType:
    if not lanes:
        return Text("No lane yet: nothing was ever accepted.", style="dim")
    table = _table("Lanes", {"lane": None}, ["waiting", "of", "size", "tokens", "sealed in"])
    for lane in lanes:
        table.add_row(
            lane.lane,
            f"{lane.requests:,}",
            f"{lane.thresholds.max_requests:,}",
            megabytes(lane.size),
            f"{lane.tokens:,}",
            "" if lane.due is None else duration(max(0.0, lane.due - now)),
        )
    return table


def _batch_table(batches: list[BatchRow], now: float) -> RenderableType:
    if not batches:
        return Text("No batch is on its way.", style="dim")
    table = _table(
        "Batches on their way",
        {"batch": 14, "lane": None, "state": 10, "note": None},
        ["requests", "done", "age", "end"],
    )
    for batch in batches:
        table.add_row(
            batch.id,
            batch.lane,
            str(batch.state),
            batch.reason or "",
            f"{batch.requests:,}",
            "" if batch.completed is None else f"{batch.completed + (batch.failed or 0):,}",
            duration(now - batch.sealed_at),
            _expected(batch, now),
        )
    return table


def _expected(batch: BatchRow, now: float) -> str:
    if batch.expected_end is None or batch.ended_at is not None:
        return ""
    left = batch.expected_end - now
    return f"in {duration(left)}" if left > 0 else f"{duration(-left)} ago"


def _summary(totals: Totals) -> RenderableType:
    money = totals.money
    share = f" ({money.saving / money.full_price:.0%})" if money.full_price else ""
    counts = ", ".join(f"{count:,} {state.lower()}" for state, count in totals.requests.items())
    return Text.assemble(
        ("\nRequests: ", "bold"),
        counts or "none",
        ("\nCost: ", "bold"),
        f"{dollars(money.cost)}, {dollars(money.saving)} saved{share}",
    )
