"""`lowtide health`."""

from __future__ import annotations

import socket
from typing import Annotated

import typer
from celery import Celery

from lowtide import pulse
from lowtide.cli.context import AppOption, JsonOption, print_json, runtime, seconds
from lowtide.errors import LowtideError

_PATIENCE = 5.0
_LOOK_AROUND = 1.0


def health(
    app: AppOption = None,
    worker: Annotated[
        str | None, typer.Option("--worker", "-w", help="Its name; celery@ and this host's name.")
    ] = None,
    older: Annotated[
        str, typer.Option("--older", help="How old its last tick may be at most.")
    ] = "60s",
    *,
    json: JsonOption = False,
) -> None:
    """Does the worker of this machine tick and answer? For health checks of containers."""
    most = seconds(older)
    rt = runtime(app)
    name = worker or f"celery@{socket.gethostname()}"
    age = pulse.age(rt, name)
    if age is None:
        raise LowtideError(_unknown(rt.app, name))
    if age > most:
        raise LowtideError(f"{name} ticked {age:.0f} s ago: its loop stands still; restart it.")
    if not _answers(rt.app, name):
        raise LowtideError(f"{name} ticks, but does not answer over the broker.")
    if json:
        print_json({"worker": name, "ticked": age})
        return
    typer.echo(f"{name} ticked {age:.0f} s ago and answers.")


def _unknown(app: Celery, name: str) -> str:
    """What to do about a worker that never ticked: those beside it may be meant."""
    answers = app.control.ping(timeout=_LOOK_AROUND)
    host = name.partition("@")[2]
    beside = sorted(other for each in answers for other in each if other.endswith(f"@{host}"))
    if not beside:
        return f"{name} has not ticked: is it started, and on this Redis?"
    verb = "runs" if len(beside) == 1 else "run"
    return (
        f"{name} has not ticked. On its machine {verb} {', '.join(beside)}: ask for "
        f"{'it' if len(beside) == 1 else 'one'} with --worker {beside[0]}."
    )


def _answers(app: Celery, name: str) -> bool:
    return bool(app.control.ping(destination=[name], timeout=_PATIENCE, limit=1))
