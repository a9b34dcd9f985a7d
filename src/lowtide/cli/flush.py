"""`lowtide flush`."""

from __future__ import annotations

from typing import Annotated

import typer

from lowtide import control
from lowtide.cli.context import AppOption, JsonOption, print_json, runtime
from lowtide.errors import LowtideError
from lowtide.held import LaneStatus
from lowtide.lane import Lane


def flush(
    lanes: Annotated[
        list[str] | None, typer.Argument(help="Lane keys, models or accounts; all when none.")
    ] = None,
    app: AppOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Send what waits in the lanes' buffers now."""
    rt = runtime(app)
    waiting = [lane for lane in rt.buffer.lanes() if lane.requests]
    chosen = [lane for lane in waiting if _matches(lane, lanes)]
    if lanes and not chosen:
        known = ", ".join(lane.lane for lane in waiting) or "none"
        raise LowtideError(f"Nothing waits in {', '.join(lanes)}; lanes with requests: {known}.")
    sent = []
    for lane in chosen:
        batch_id = control.flush(rt, lane.lane)
        if batch_id is None:  # a worker was faster
            continue
        sent.append({"lane": lane.lane, "batch": batch_id, "requests": lane.requests})
        if not json:
            typer.echo(f"{lane.lane}: {lane.requests:,} requests go as batch {batch_id}")
    if json:
        print_json(sent)
    elif not sent:
        typer.echo("Nothing waits.")


def _matches(status: LaneStatus, wanted: list[str] | None) -> bool:
    lane = Lane.parse(status.lane)
    return not wanted or not {*lane.subjects, lane.model}.isdisjoint(wanted)
