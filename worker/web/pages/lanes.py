"""Lanes: how full their buffers are; flush, pause, resume."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from lowtide import control
from lowtide.lane import Lane
from lowtide.metrics import fill
from lowtide.runtime import Runtime
from worker.web import guard, render


def lanes(request: Request) -> Response:
    """`/lanes`."""
    rt: Runtime = request.app.state.rt
    found = rt.buffer.lanes()
    now = rt.clock.now()
    accounts = sorted({Lane.parse(lane.lane).account for lane in found})
    return render.page(
        request,
        "lanes.html",
        title="Lanes",
        lanes=[(lane, fill(lane, now)) for lane in found],
        accounts=accounts,
        pauses=control.pauses(rt),
    )


async def act(request: Request) -> Response:
    """`POST /lanes/flush|pause|resume`."""
    sent = await guard.form(request)
    subject = str(sent.get("subject", ""))
    reason = str(sent.get("reason", "")).strip()[:200]
    said = await run_in_threadpool(
        _act, request.app.state.rt, request.path_params["verb"], subject, reason
    )
    return render.back(request, "/lanes", said)


def _act(rt: Runtime, verb: str, subject: str, reason: str) -> str:
    known = {lane.lane for lane in rt.buffer.lanes()}
    known |= {Lane.parse(lane).account for lane in known}
    if subject not in known:
        raise HTTPException(404, "There is no such lane.")
    if verb == "flush":
        batch_id = control.flush(rt, subject)
        return f"Batch {batch_id} is on its way." if batch_id else "Nothing waits in this lane."
    name = Lane.parse(subject).model if ":" in subject else f"Account {subject}"
    if verb == "pause":
        control.pause(rt, subject, reason or "by hand, on the page")
        return f"{name} is paused; calls are still accepted and wait."
    if verb == "resume":
        return f"{name} goes on." if control.resume(rt, subject) else "It was not paused."
    raise HTTPException(404)
