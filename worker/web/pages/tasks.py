"""One task: its life, what its envelope says, its answer if that may be shown; and the search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from lowtide import attempts, hidden
from lowtide.envelope import unpack as unpack_envelope
from lowtide.errors import LowtideError
from lowtide.ledger import BatchRow, RequestRow
from lowtide.request import unpack
from lowtide.result import BatchResult
from lowtide.runtime import Runtime
from worker.web import render
from worker.web.pages.batches import Station

_LONGEST_ANSWER = 20_000


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a task, with its batch and its life."""

    row: RequestRow
    batch: BatchRow | None
    stations: list[Station]


def task(request: Request) -> Response:
    """`/tasks/{id}`."""
    rt: Runtime = request.app.state.rt
    task_id = request.path_params["task_id"]
    rows = rt.ledger.task(task_id)
    place = rt.where(task_id)
    if not rows and place is None:
        raise HTTPException(404, f"lowtide knows no task {task_id}; it may not be accepted yet.")
    result = BatchResult(task_id, app=rt.app)
    envelope = _envelope(rt, rows[-1], rt.ledger.batch(rows[-1].batch_id)) if rows else None
    return render.page(
        request,
        "task.html",
        title=f"Task {task_id}",
        task_id=task_id,
        state=result.state,
        name=rows[-1].task if rows else None,
        place=place,
        envelope=envelope,
        asks=[_ask(rt, row, envelope) for row in rows],
        tried={
            name: attempts.line(failed)
            for name, failed in rt.ledger.attempts([row.custom_id for row in rows]).items()
        },
        answer=_answer(rt, result),
        show_prompts=rt.settings.show_prompts,
    )


def find(request: Request) -> Response:
    """`/find?q=`: a task, a batch of ours, or a batch of the provider, by its id."""
    rt: Runtime = request.app.state.rt
    wanted = request.query_params.get("q", "").strip()[:200]
    if wanted and (rt.ledger.batch(wanted) or rt.ledger.by_provider_id(wanted)):
        return render.back(request, f"/batches/{wanted}")
    task_id = wanted.rsplit(".", 2)[0] if wanted.count(".") >= 2 else wanted
    if task_id and (rt.where(task_id) or rt.ledger.task(task_id)):
        return render.back(request, f"/tasks/{task_id}")
    said = f"No task and no batch has the id {wanted!r}." if wanted else "Type the id of a task."
    return render.page(request, "problem.html", status=404, title="Not found", problem=said)


def _ask(rt: Runtime, row: RequestRow, envelope: dict[str, Any] | None) -> Ask:
    batch = rt.ledger.batch(row.batch_id)
    accepted = envelope["accepted_at"] if envelope else None
    times = [("accepted", "its request is in a buffer", accepted)]
    if batch is not None:
        times += [
            ("sealed", "its batch was cut", batch.sealed_at),
            ("submitted", "its batch is at the provider", batch.submitted_at),
            ("ended", "the provider is done", batch.ended_at),
        ]
    times.append((str(row.state).lower(), "its outcome reached the task", row.done_at))
    stations: list[Station] = []
    before: float | None = None
    for name, text, at in times:
        took = None if at is None or before is None else max(0.0, at - before)
        stations.append(Station("outcome" if name == "recorded" else name, text, at, took))
        before = at if at is not None else before
    return Ask(row, batch, stations)


def _envelope(rt: Runtime, row: RequestRow, batch: BatchRow | None) -> dict[str, Any] | None:
    """What is kept to finish the task; arguments by their shape, unless prompts may be shown."""
    if batch is None:
        return None
    try:
        stored = unpack(row.custom_id, batch.to_lane(), row.blob)
        envelope = unpack_envelope(stored.envelope)
        loaded = envelope.load(rt.app, row.task_id, row.task, "")
    except LowtideError as error:
        return {"problem": error.message, "accepted_at": None, "facts": {}}
    show = repr if rt.settings.show_prompts else hidden.veil
    links = {
        name: len(loaded.get(name) or ())
        for name in ("callbacks", "errbacks", "chain")
        if loaded.get(name)
    }
    facts = {
        "args": show(loaded["args"]),
        "kwargs": show(loaded["kwargs"]),
        "try": envelope.retries + 1,
        "answers so far": len(envelope.history) or None,
        "root": envelope.root_id,
        "parent": envelope.parent_id,
        "group": envelope.group,
        "chord": "waits for this task" if loaded.get("chord") else None,
        "then": ", ".join(f"{count} {name}" for name, count in links.items()) or None,
        "sent by": envelope.origin,
        "deadline": stored.deadline,
        "size": f"{len(row.blob):,} bytes stored, {len(stored.body):,} bytes of request",
    }
    known = {name: value for name, value in facts.items() if value is not None}
    return {"problem": "", "accepted_at": envelope.accepted_at, "facts": known}


def _answer(rt: Runtime, result: BatchResult) -> str | None:
    """The result as text; None while there is none, or when it may not be shown."""
    if not rt.settings.show_prompts or not result.ready():
        return None
    return str(result.result)[:_LONGEST_ANSWER]
