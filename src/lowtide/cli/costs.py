"""`lowtide costs`."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer
from rich.text import Text

from lowtide.cli.context import AppOption, JsonOption, console, print_json, runtime, seconds
from lowtide.cli.tables import table
from lowtide.shown import dollars


class By(StrEnum):
    """What one row is about."""

    TASK = "task"
    LANE = "lane"
    DAY = "day"
    BATCH = "batch"
    TENANT = "tenant"


def costs(
    by: Annotated[By, typer.Option(help="What one row is about.")] = By.TASK,
    since: Annotated[
        float | None,
        typer.Option(
            help="Only what came back in this time, such as 7d.", parser=seconds, metavar="DURATION"
        ),
    ] = None,
    app: AppOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Show what the answers cost and saved, by task, lane, UTC day, batch or tenant."""
    rt = runtime(app)
    start = None if since is None else rt.clock.now() - since
    rows = rt.ledger.costs(by.value, since=start)
    if json:
        print_json([asdict(row) for row in rows])
        return
    made = table("", {by.value: None}, ["answers", "failed", "in", "out", "cost", "saved"])
    for row in rows:
        made.add_row(
            row.key,
            f"{row.answered:,}",
            f"{row.failed:,}",
            f"{row.input_tokens:,}",
            f"{row.output_tokens:,}",
            dollars(row.cost),
            dollars(row.saving),
        )
    out = console()
    out.print(made if rows else Text("Nothing has come back yet.", style="dim"))
    unpriced = sum(row.unpriced for row in rows)
    if unpriced:
        out.print(f"The price of {unpriced:,} answers is unknown; they are not in the sums.")
