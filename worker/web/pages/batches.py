"""Batches: the list, one batch, its requests as a file; cancel and retry."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lowtide import control
from lowtide.ledger import BatchRow
from lowtide.ledger.lookups import RequestLine
from lowtide.request import unpack
from lowtide.runtime import Runtime
from worker.web import guard, render
from worker.web.pages.overview import OPEN

_PAGE = 30
FILTERS = {
    "all": None,
    "open": OPEN,
    "held": ("HELD",),
    "delivered": ("DELIVERED",),
    "cancelled": ("CANCELLED",),
}
_CANCELLABLE = frozenset({"RECORDED", "UPLOADED", "HELD", "SUBMITTING", "SUBMITTED"})


@dataclass(frozen=True, slots=True)
class Station:
    """A point in a life: when it was reached, and how long that took from the one before."""

    name: str
    text: str
    at: float | None
    took: float | None = None


def batches(request: Request) -> Response:
    """`/batches`."""
    rt: Runtime = request.app.state.rt
    query = request.query_params
    shown = query.get("show", "all")
    lane = query.get("lane") or None
    at, _, last = query.get("before", "").partition(",")
    try:
        before = (float(at), last) if at else None
    except ValueError:
        raise HTTPException(404) from None
    found = rt.ledger.find_batches(
        states=FILTERS.get(shown), lane=lane, before=before, limit=_PAGE + 1
    )
    return render.page(
        request,
        "batches.html",
        title="Batches",
        batches=found[:_PAGE],
        more=found[_PAGE - 1] if len(found) > _PAGE else None,
        shown=shown,
        filters=list(FILTERS),
        lane=lane,
        sealed=[] if lane or before else rt.buffer.sealed(),
    )


def batch(request: Request) -> Response:
    """`/batches/{id}`."""
    rt: Runtime = request.app.state.rt
    found = _batch(request)
    after = request.query_params.get("after", "")
    rows = rt.ledger.requests_in(found.id, after=after, limit=_PAGE + 1)
    outcomes = rt.ledger.outcomes_in(found.id)
    left = sum(group.count for group in outcomes if group.state == "RECORDED")
    return render.page(
        request,
        "batch.html",
        title=f"Batch {found.id}",
        batch=found,
        life=life(found),
        outcomes=outcomes,
        left=left,
        held=sum(group.count for group in outcomes),
        money=rt.ledger.cost_of(found.id),
        children=rt.ledger.find_batches(parent=found.id, limit=20),
        rows=rows[:_PAGE],
        more=rows[_PAGE - 1].custom_id if len(rows) > _PAGE else None,
        provider=_provider(rt, found.id),
        can_cancel=found.state in _CANCELLABLE,
        can_retry=found.state not in ("DELIVERED", "CANCELLED"),
        show_prompts=rt.settings.show_prompts,
    )


def download(request: Request) -> Response:
    """`/batches/{id}/requests.csv`: ids, outcomes, tokens and money; no prompts."""
    rt: Runtime = request.app.state.rt
    found = _batch(request)

    def rows() -> Iterator[str]:
        yield _csv([field.name for field in fields(RequestLine)])
        after = ""
        while page := rt.ledger.requests_in(found.id, after=after, limit=1000):
            after = page[-1].custom_id
            yield "".join(_csv(astuple(row)) for row in page)

    return StreamingResponse(rows(), headers=_as_file(f"{found.id}.csv", "text/csv"))


def lines(request: Request) -> Response:
    """`/batches/{id}/input.jsonl`: what the provider was sent, if prompts may be shown."""
    rt: Runtime = request.app.state.rt
    found = _batch(request)
    if not rt.settings.show_prompts:
        raise HTTPException(
            404, "Prompts are not shown here; LOWTIDE_SHOW_PROMPTS=true shows them."
        )
    lane = found.to_lane()

    def content() -> Iterator[bytes]:
        after = ""
        while page := rt.ledger.blobs_in(found.id, after):
            after = max(page)
            for custom_id, blob in page.items():
                yield unpack(custom_id, lane, blob).line()

    return StreamingResponse(content(), headers=_as_file(f"{found.id}.jsonl", "application/jsonl"))


async def act(request: Request) -> Response:
    """`POST /batches/{id}/cancel|retry`."""
    await guard.form(request)
    rt: Runtime = request.app.state.rt
    batch_id, verb = request.path_params["batch_id"], request.path_params["verb"]
    if verb == "cancel":
        count = await run_in_threadpool(control.cancel, rt, batch_id)
        said = f"{count} tasks are revoked and the provider is asked to cancel."
    elif verb == "retry":
        said = (
            f"Its next step is taken now: {await run_in_threadpool(control.retry, rt, batch_id)}."
        )
    else:
        raise HTTPException(404)
    return render.back(request, f"/batches/{batch_id}", said)


def life(found: BatchRow) -> list[Station]:
    """The states of a batch with their times, in order; those to come have none."""
    reached = [
        ("sealed", "cut from its lane", found.sealed_at),
        ("recorded", "in the ledger", found.recorded_at),
        ("uploaded", "the provider has the file", found.uploaded_at),
        ("submitted", "the provider works on it", found.submitted_at),
        ("ended", "the provider is done", found.ended_at),
        ("fetched", "every answer is read", found.fetched_at),
        ("delivered", "every task has its answer", found.delivered_at),
    ]
    stations: list[Station] = []
    before: float | None = None
    for name, text, at in reached:
        took = None if at is None or before is None else max(0.0, at - before)
        stations.append(Station(name, text, at, took))
        before = at if at is not None else before
    return stations


def _batch(request: Request) -> BatchRow:
    rt: Runtime = request.app.state.rt
    wanted = request.path_params["batch_id"]
    found = rt.ledger.batch(wanted) or rt.ledger.by_provider_id(wanted)
    if found is None:
        sealed = rt.buffer.sealed_batch(wanted)
        raise HTTPException(
            404,
            f"Batch {wanted} is sealed and not in the ledger yet; look again in a moment."
            if sealed
            else f"The ledger has no batch {wanted}.",
        )
    return found


def _provider(rt: Runtime, batch_id: str) -> dict[str, str]:
    """What the last status call told."""
    from lowtide import keys

    found = rt.redis.hgetall(keys.batch(rt.settings.namespace, batch_id))
    return {name.decode(): value.decode() for name, value in found.items()}  # type: ignore[union-attr]


def _csv(values: tuple[object, ...] | list[str]) -> str:
    file = io.StringIO()
    csv.writer(file).writerow(values)
    return file.getvalue()


def _as_file(name: str, kind: str) -> dict[str, str]:
    return {"content-type": kind, "content-disposition": f'attachment; filename="{name}"'}
