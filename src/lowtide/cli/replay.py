"""`lowtide replay`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from lowtide.cli.batches import find
from lowtide.cli.context import AppOption, JsonOption, print_json, runtime
from lowtide.errors import LowtideError
from lowtide.replay import Replayed
from lowtide.replay import replay as deliver_again
from lowtide.tell import shown


def replay(
    batch_id: Annotated[str, typer.Argument(help="A batch's id, ours or the provider's.")],
    app: AppOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Deliver a batch's results again; what the result backend lost is stored again.

    Links, chains and chords do not run again, nothing is paid, and it is safe to repeat.
    Exit code 1 when a result cannot be had any more.
    """
    rt = runtime(app)
    found = deliver_again(rt, find(rt, batch_id).id)
    if json:
        print_json({**asdict(found), "complete": found.complete})
        raise typer.Exit(0 if found.complete else 1)
    for line in _lines(found):
        typer.echo(line)
    if not found.complete:
        raise LowtideError(_trouble(found))


def _lines(found: Replayed) -> list[str]:
    told = [
        (found.there, "are in the result backend, and are left as they are."),
        (found.stored, "were lost, and are stored again."),
        (found.unkept, "are not in the result backend, as their tasks ignore results."),
        (found.went_on, "are of tasks that went on: the request that came last ends them."),
        (found.waiting, "are not delivered for the first time yet."),
    ]
    lines = [f"{count:,} results {what}" for count, what in told if count]
    lines += [f"{count:,} are told again to {shown(name)}." for name, count in found.told.items()]
    return lines


def _trouble(found: Replayed) -> str:
    if found.unknown:
        names = ", ".join(f"{name} ({count:,})" for name, count in found.unknown.most_common())
        return f"This app does not have all tasks of {found.batch}: {names}; name yours with -A."
    why = f" {found.reason}" if found.reason else ""
    return f"{found.lost:,} results of {found.batch} are lost.{why}"
