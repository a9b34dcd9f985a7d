"""`lowtide status`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from lowtide.cli.batches import batch_table
from lowtide.cli.context import AppOption, JsonOption, console, print_json, runtime
from lowtide.cli.lanes import all_lanes, lane_table
from lowtide.cli.outbox import outbox_table
from lowtide.ledger import OPEN, Totals
from lowtide.runtime import Runtime
from lowtide.shown import dollars
from lowtide.standing import standings

_MOST_BATCHES = 50


def status(
    app: AppOption = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Renew it each second.")] = False,
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
        "lanes": [asdict(lane) for lane in all_lanes(rt)],
        "sealed": [asdict(batch) for batch in rt.buffer.sealed()],
        "batches": [asdict(batch) for batch in rt.ledger.batches(OPEN, _MOST_BATCHES)],
        "outbox": [asdict(each) for each in standings(rt)],
        "totals": {
            "batches": totals.batches,
            "requests": totals.requests,
            "money": asdict(totals.money),
        },
    }


def _view(rt: Runtime) -> RenderableType:
    on_their_way = rt.ledger.batches(OPEN, _MOST_BATCHES)
    now = rt.clock.now()
    parts = [lane_table(rt), batch_table(on_their_way, now, "Batches on their way")]
    owed = [each for each in standings(rt) if each.waiting or each.trouble]
    if owed:
        parts.append(outbox_table(owed, now))
    return Group(*parts, _summary(rt.ledger.totals()))


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
