"""Costs by task, lane and day."""

from __future__ import annotations

from typing import cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from lowtide.ledger import By
from lowtide.runtime import Runtime
from worker.web import render
from worker.web.pages.overview import day_bars, midnight, total

_BY = ("task", "lane", "day")
_SPANS = {"1": "today", "7": "7 days", "30": "30 days", "90": "90 days"}


def costs(request: Request) -> Response:
    """`/costs?by=task|lane|day&days=30`."""
    rt: Runtime = request.app.state.rt
    cache = request.app.state.cache
    by = request.query_params.get("by", "task")
    days = request.query_params.get("days", "30")
    if by not in _BY or days not in _SPANS:
        raise HTTPException(404)
    since = midnight(rt.clock.now()) - (int(days) - 1) * 86_400
    rows = cache.get(("costs", by, since), lambda: rt.ledger.costs(cast("By", by), since=since))
    by_day = cache.get(("costs", "day", since), lambda: rt.ledger.costs("day", since=since))
    ordered = rows if by == "day" else sorted(rows, key=lambda row: -row.cost)
    return render.page(
        request,
        "costs.html",
        title="Costs",
        by=by,
        choices=_BY,
        days=days,
        spans=_SPANS,
        rows=ordered,
        sum=total(rows),
        bars=day_bars(by_day, since),
    )
