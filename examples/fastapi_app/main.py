"""Summaries over HTTP: `uvicorn main:app`."""

from collections.abc import AsyncIterator
from typing import Any

from celery.result import GroupResult
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from jobs import app as celery_app
from jobs import summarize
from pydantic import BaseModel

import lowtide

app = FastAPI(title="Summaries")


class Text(BaseModel):
    """What is to be summarised."""

    text: str


class Texts(BaseModel):
    """Many of them."""

    texts: list[str]


@app.post("/summaries", status_code=202)
def ask(given: Text) -> dict[str, str]:
    """Takes a text; its summary comes with one of the next batches."""
    return {"id": summarize.delay(given.text).id}


@app.get("/summaries/{task_id}")
def look(task_id: str) -> dict[str, Any]:
    """The summary, or where the request is."""
    result = summarize.AsyncResult(task_id)
    if result.failed():
        return {"state": "FAILURE", "error": str(result.result)}
    if result.successful():
        return {"state": "SUCCESS", "summary": result.result}
    place = result.where() or {"state": "PENDING"}
    shown = ("state", "lane", "batch", "position", "expected_end")
    return {name: place.get(name) for name in shown}


@app.post("/digests", status_code=202)
def ask_many(given: Texts) -> dict[str, Any]:
    """Takes many texts at once."""
    group = summarize.delay_many(given.texts)
    group.save()
    return {"id": group.id, "texts": len(group)}


@app.get("/digests/{group_id}")
def look_at_many(group_id: str) -> dict[str, Any]:
    """How far they are."""
    progress = lowtide.progress(_group(group_id))
    return {"done": progress.done, "total": progress.total, "expected_end": progress.expected_end}


@app.get("/digests/{group_id}/stream")
def stream(group_id: str) -> StreamingResponse:
    """The summaries as server-sent events, the first to come first."""
    group = _group(group_id)
    places = {member.id: number for number, member in enumerate(group.results)}

    async def events() -> AsyncIterator[str]:
        async for result in lowtide.as_completed(group):
            said = result.result if result.successful() else f"failed: {result.result}"
            yield f"id: {places[result.id]}\ndata: {said}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


def _group(group_id: str) -> GroupResult:
    found = GroupResult.restore(group_id, app=celery_app)
    if found is None:
        raise HTTPException(404, "There is no such digest.")
    return found
