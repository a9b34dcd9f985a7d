"""`lowtide purge`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from lowtide.cli.context import AppOption, JsonOption, print_json, runtime, seconds

_LEAST = 48 * 3600.0


def purge(
    older: Annotated[
        str, typer.Option(help="Age since their end of the batches that go, such as 14d.")
    ],
    app: AppOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Delete batches that ended long ago from the ledger, with their requests and costs.

    What is still to be told, kept for a replay or waited for stays. It runs beside workers.
    """
    age = seconds(older)
    if age < _LEAST:
        raise typer.BadParameter(
            f"{older} is too young: a batch takes up to a day and may be sent once more; "
            "keep at least 48h."
        )
    rt = runtime(app)
    purged = rt.ledger.purge(rt.clock.now() - age)
    if json:
        print_json(asdict(purged))
        return
    typer.echo(f"{purged.batches:,} batches with {purged.requests:,} requests are deleted.")
    if purged.kept:
        typer.echo(
            f"{purged.kept:,} as old stay: their results are still to be told or kept for a "
            "replay, or their lines are waited for."
        )
