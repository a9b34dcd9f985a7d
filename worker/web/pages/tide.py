"""When is low tide: how long the provider takes, by hour of the week."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from lowtide.ledger import Turnaround
from lowtide.runtime import Runtime
from worker.web import render
from worker.web.charts import DAYS

_SPAN = 90 * 86_400
_MOST = 20_000
_NAMED = 3


def tide(request: Request) -> Response:
    """`/tide?lane=`."""
    rt: Runtime = request.app.state.rt
    lane = request.query_params.get("lane") or None
    lanes = [status.lane for status in rt.buffer.lanes()]
    if lane is not None and lane not in lanes:
        raise HTTPException(404, "There is no such lane.")
    since = rt.clock.now() - _SPAN
    found = request.app.state.cache.get(
        ("tide", lane), lambda: rt.ledger.turnarounds(lane=lane, since=since, limit=_MOST)
    )
    cells = by_hour(found)
    ranked = sorted(
        (value, DAYS[day], hour)
        for day, row in enumerate(cells)
        for hour, value in enumerate(row)
        if value is not None
    )
    took = sorted(item.ended_at - item.submitted_at for item in found)
    return render.page(
        request,
        "tide.html",
        title="Tide",
        lane=lane,
        lanes=lanes,
        cells=cells,
        count=len(took),
        low=ranked[:_NAMED],
        high=ranked[: -_NAMED - 1 : -1] if len(ranked) > _NAMED else [],
        median=statistics.median(took) if took else None,
        slow=slow(took) if took else None,
    )


def slow(took: Sequence[float]) -> float:
    """The least of these sorted durations that 95 % of them are not above."""
    return took[math.ceil(0.95 * len(took)) - 1]


def by_hour(found: list[Turnaround]) -> list[list[float | None]]:
    """Median seconds by day of the week and hour of submission, UTC."""
    values: dict[tuple[int, int], list[float]] = defaultdict(list)
    for item in found:
        at = datetime.fromtimestamp(item.submitted_at, UTC)
        values[at.weekday(), at.hour].append(item.ended_at - item.submitted_at)
    return [
        [
            statistics.median(values[day, hour]) if (day, hour) in values else None
            for hour in range(24)
        ]
        for day in range(7)
    ]
