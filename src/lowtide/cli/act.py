"""`lowtide pause`, `resume`, `cancel` and `retry`."""

from __future__ import annotations

from typing import Annotated

import typer

from lowtide import control, standing
from lowtide.cli.batches import find
from lowtide.cli.context import AppOption, JsonOption, print_json, runtime
from lowtide.errors import LowtideError
from lowtide.lane import Lane
from lowtide.runtime import Runtime

Subject = Annotated[
    str, typer.Argument(help="A lane's key, a model, an account, or to:NAME of a destination.")
]
BatchId = Annotated[str, typer.Argument(help="A batch's id, ours or the provider's.")]


def pause(
    subject: Subject,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks.")] = "by hand",
    app: AppOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Keep back what a lane or an account has to send. Calls are still accepted."""
    rt = runtime(app)
    names = _subjects(rt, subject)
    for name in names:
        control.pause(rt, name, reason)
        if not json:
            typer.echo(f"{name} is paused; `lowtide resume {name}` lets it go on.")
    if json:
        print_json({"paused": names, "reason": reason})


def resume(subject: Subject, app: AppOption = None, *, json: JsonOption = False) -> None:
    """End a pause; what was kept back goes on at once."""
    rt = runtime(app)
    resumed = [name for name in _subjects(rt, subject) if control.resume(rt, name)]
    if not resumed:
        known = ", ".join(control.pauses(rt)) or "nothing"
        raise LowtideError(f"{subject} is not paused; paused is: {known}.")
    if json:
        print_json({"resumed": resumed})
        return
    for name in resumed:
        typer.echo(f"{name} goes on.")


def cancel(batch_id: BatchId, app: AppOption = None, *, json: JsonOption = False) -> None:
    """Revoke every task that waits for a batch, and ask the provider to cancel it."""
    rt = runtime(app)
    found = find(rt, batch_id).id
    revoked = control.cancel(rt, found)
    if json:
        print_json({"batch": found, "revoked": revoked})
        return
    typer.echo(f"{revoked:,} tasks are revoked; what is answered already is still delivered.")


def retry(batch_id: BatchId, app: AppOption = None, *, json: JsonOption = False) -> None:
    """Take a batch's next step now in place of later."""
    rt = runtime(app)
    known = rt.buffer.sealed_batch(batch_id)
    ours = batch_id if known is not None else find(rt, batch_id).id
    step = control.retry(rt, ours)
    if json:
        print_json({"batch": ours, "step": step})
        return
    typer.echo(f"{step} of {batch_id} is sent to the workers.")


def _subjects(rt: Runtime, subject: str) -> list[str]:
    """Lane keys for a model; a lane's key or an account as it is.

    Raises:
        LowtideError: It is none of them.
    """
    lanes = [status.lane for status in rt.buffer.lanes()]
    lanes += sorted({Lane.parse(lane).whole.key for lane in lanes} - set(lanes))
    accounts = {Lane.parse(lane).account for lane in lanes} | set(rt.settings.accounts)
    destinations = [control.TO + name for name in standing.names(rt)]
    if subject in (*lanes, *accounts, *destinations, *control.pauses(rt)):
        return [subject]
    named = sorted({Lane.parse(x).whole.key for x in lanes if Lane.parse(x).model == subject})
    if not named:
        known = ", ".join([*sorted(accounts), *sorted(destinations), *sorted(lanes)])
        raise LowtideError(f"No lane, model or account is named {subject!r}; there are: {known}.")
    return named
