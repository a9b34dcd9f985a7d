"""`lowtide outbox`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from lowtide.cli.context import AppOption, JsonOption, console, print_json, runtime
from lowtide.cli.tables import table
from lowtide.errors import LowtideError
from lowtide.shown import duration
from lowtide.standing import Standing, standings
from lowtide.standing import drop as let_go


def outbox(
    drop: Annotated[
        str | None,
        typer.Option(help="Let go of all that waits for this one; it is never told of it."),
    ] = None,
    app: AppOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Show the webhooks, streams and result backends that are told of results, and what waits."""
    rt = runtime(app)
    found = standings(rt)
    if drop is not None:
        if drop not in {each.name for each in found}:
            known = ", ".join(each.name for each in found) or "none"
            raise LowtideError(f"No destination is named {drop!r}; there are: {known}.")
        dropped = let_go(rt, drop)
        if json:
            print_json({"destination": drop, "dropped": dropped})
        else:
            typer.echo(f"{dropped:,} results that waited for {drop} are let go of.")
        return
    if json:
        print_json([asdict(each) for each in found])
        return
    console().print(outbox_table(found, rt.clock.now()))


def outbox_table(found: Sequence[Standing], now: float) -> RenderableType:
    """Destinations, for people."""
    if not found:
        return Text("No destination is set.", style="dim")
    made = table("Destinations", {"destination": None, "note": None}, ["waiting", "since"])
    for each in found:
        made.add_row(
            each.name,
            each.trouble or each.error or "",
            f"{each.waiting:,}",
            "" if each.since is None else duration(now - each.since),
        )
    return made
