"""The first page: what waits, what is at the provider, what came back, its cost, what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response

from lowtide import control
from lowtide.ledger import BatchRow, CostRow
from lowtide.metrics import fill
from lowtide.runtime import Runtime
from lowtide.shown import duration
from lowtide.standing import standings
from lowtide.tell import subject
from worker.web import render
from worker.web.charts import Bar

_DAYS = 14
_SHOWN = 8
OPEN = ("RECORDED", "UPLOADED", "SUBMITTING", "SUBMITTED", "ENDED", "FETCHED", "HELD")
_SENDING = ("RECORDED", "UPLOADED", "SUBMITTING", "HELD")
_LATE_TIMERS = 120.0
_OLD_SEALED = 300.0


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that somebody should look at."""

    level: str
    text: str
    link: str = ""


def overview(request: Request) -> Response:
    """`/`."""
    rt: Runtime = request.app.state.rt
    cache = request.app.state.cache
    lanes = rt.buffer.lanes()
    sealed = rt.buffer.sealed()
    counts = rt.ledger.batch_counts()
    today = midnight(rt.clock.now())
    money = cache.get(("today", today), lambda: total(rt.ledger.costs("day", since=today)))
    since = today - (_DAYS - 1) * 86_400
    days = cache.get(("days", since), lambda: rt.ledger.costs("day", since=since))
    inside = {
        "buffered": sum(lane.requests for lane in lanes),
        "sending": sum(batch.requests for batch in sealed) + _requests(counts, _SENDING),
        "submitted": _requests(counts, ("SUBMITTED",)),
        "returning": _requests(counts, ("ENDED", "FETCHED")),
    }
    going = rt.ledger.find_batches(states=OPEN, limit=_SHOWN)
    return render.page(
        request,
        "overview.html",
        title="Overview",
        flow=inside,
        money=money,
        bars=day_bars(days, since),
        lanes=[(lane, fill(lane, rt.clock.now())) for lane in lanes],
        batches=going,
        done=rt.ledger.find_batches(states=("DELIVERED",), limit=5),
        alerts=_alerts(rt, going),
    )


def midnight(now: float) -> float:
    """When the UTC day began."""
    return now - now % 86_400


def total(rows: list[CostRow]) -> CostRow:
    """The sum of several rows."""
    names = [name for name in CostRow.__dataclass_fields__ if name != "key"]
    return CostRow("", *(sum(getattr(row, name) for row in rows) for name in names))


def day_bars(rows: list[CostRow], since: float) -> list[Bar]:
    """One bar for each day from `since` until today, those without money too."""
    known = {row.key: row for row in rows}
    bars = []
    day = datetime.fromtimestamp(since, UTC).date()
    while day <= datetime.now(UTC).date():
        row = known.get(day.isoformat())
        bars.append(Bar(day.isoformat(), row.cost if row else 0.0, row.saving if row else 0.0))
        day += timedelta(days=1)
    return bars


def _requests(counts: list[tuple[str, str, int, int]], states: tuple[str, ...]) -> int:
    return sum(inside for _, state, _, inside in counts if state in states)


def _alerts(rt: Runtime, going: list[BatchRow]) -> list[Alert]:
    now = rt.clock.now()
    found = [
        Alert("warning", f"{pause.subject} is paused: {pause.reason}", "/lanes")
        for pause in control.pauses(rt).values()
    ]
    found += [
        Alert("warning", f"Batch {batch.id} is held: {batch.reason}", f"/batches/{batch.id}")
        for batch in rt.ledger.find_batches(states=("HELD",), limit=3)
    ]
    found += [
        Alert("warning", f"Batch {batch.id} is past the provider's window", f"/batches/{batch.id}")
        for batch in going
        if batch.expires_at is not None and batch.expires_at < now and batch.ended_at is None
    ]
    found += [
        Alert("bad", f"Results wait for {each.name}: {each.trouble}", "/doctor")
        for each in standings(rt)
        if each.trouble and subject(each.name) not in control.pauses(rt)
    ]
    timers = rt.timers.waiting()
    if timers.late > _LATE_TIMERS:
        late = duration(timers.late)
        found.append(
            Alert("bad", f"Work has been due for {late} and no worker takes it", "/doctor")
        )
    old = [batch for batch in rt.buffer.sealed() if now - batch.sealed_at > _OLD_SEALED]
    if old:
        found.append(
            Alert("bad", f"{len(old)} sealed batches do not get into the ledger", "/doctor")
        )
    return found
