"""`lowtide lanes`."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import RenderableType
from rich.text import Text

from lowtide import control
from lowtide.cli.context import AppOption, JsonOption, console, print_json, runtime
from lowtide.cli.tables import Whole, table
from lowtide.control import Pause
from lowtide.held import LaneStatus
from lowtide.lane import Lane
from lowtide.runtime import Runtime
from lowtide.shown import duration, size


def lanes(app: AppOption = None, *, json: JsonOption = False) -> None:
    """Show each lane: how full its buffer is, when it is sealed, whether it is paused."""
    rt = runtime(app)
    if not json:
        console().print(lane_table(rt))
        return
    pauses = control.pauses(rt)
    print_json(
        [
            {**asdict(lane), "paused": pause.reason if (pause := paused(lane, pauses)) else None}
            for lane in all_lanes(rt)
        ]
    )


def all_lanes(rt: Runtime) -> list[LaneStatus]:
    """Every lane that was ever used, by its key."""
    return sorted(rt.buffer.lanes(), key=lambda lane: lane.lane)


def paused(lane: LaneStatus, pauses: dict[str, Pause]) -> Pause | None:
    """The pause that keeps a lane back, its own, of all its shares or its account's."""
    names = Lane.parse(lane.lane).subjects
    return next((pauses[name] for name in names if name in pauses), None)


def lane_table(rt: Runtime) -> RenderableType:
    """All lanes, for people."""
    found, pauses, now = all_lanes(rt), control.pauses(rt), rt.clock.now()
    if not found:
        return Text("No lane yet: nothing was ever accepted.", style="dim")
    made = table("Lanes", {"lane": None}, ["waiting", "of", "size", "tokens", "sealed"])
    keeping = {}
    for lane in found:
        pause = paused(lane, pauses)
        if pause is not None:
            keeping[pause.subject] = pause.reason
        due = "" if lane.due is None else f"in {duration(max(0.0, lane.due - now))}"
        made.add_row(
            lane.lane,
            f"{lane.requests:,}",
            f"{lane.thresholds.max_requests:,}",
            size(lane.size),
            f"{lane.tokens:,}",
            "paused" if pause else due,
        )
    return Whole(made, (f"{subject} is paused: {reason}" for subject, reason in keeping.items()))
