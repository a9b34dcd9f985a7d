"""The pipeline's steps one by one in this process, each with the CPU that it takes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery

from benchmarks import cpu
from lowtide import runtime
from lowtide.accept import Incoming, accept
from lowtide.deliver import deliver
from lowtide.envelope import Body
from lowtide.fetch import fetch
from lowtide.submit import submit
from lowtide.track import track

HOST = "bench@steps"


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of CPU of this process for each step of one batch."""

    accept: float
    submit: float
    fetch: float
    deliver: float


def messages(
    task: str, some: Sequence[str], embed: dict[str, Any] | None = None, **headers: Any
) -> list[Incoming]:
    """Messages as a worker gets them, one for each text."""
    links = {"callbacks": None, "errbacks": None, "chain": None, "chord": None, **(embed or {})}
    found = []
    for index, text in enumerate(some):
        task_id = str(uuid.uuid4())
        own = {"group_index": index} if "group" in headers else {}
        head = {"id": task_id, "task": task, "root_id": task_id, "retries": 0, **headers, **own}
        found.append(Incoming(task, head, Body.of((text,), {}, links, "json")))
    return found


def accepted(app: Celery, incoming: Sequence[Incoming], micro: int = 500) -> None:
    """Puts their requests into the buffer, some hundred at a time."""
    for at in range(0, len(incoming), micro):
        for end in accept(app, incoming[at : at + micro], HOST):
            if end.end != "buffered":
                raise SystemExit(f"a call was not buffered: {end}")


def sealed(app: Celery) -> str:
    """Closes the one lane that has calls; the id of its batch."""
    rt = runtime.of(app)
    found = [rt.buffer.seal(lane.lane, only_if_due=False) for lane in rt.buffer.lanes()]
    return next(batch for batch in found if batch is not None)


def run(app: Celery, incoming: Sequence[Incoming]) -> Spent:
    """All steps of one batch, the provider's time left out."""
    took = [cpu.own(lambda: accepted(app, incoming))]
    batch = sealed(app)
    took += [cpu.own(step) for step in through(app, batch)]
    return Spent(*took)


def through(app: Celery, batch: str) -> list[Callable[[], None]]:
    """Submit, fetch and deliver of a sealed batch; they must be called in this order."""
    rt = runtime.of(app)
    slices: list[int] = []

    def fetched() -> None:
        after = fetch(rt, batch)
        slices.extend(range(after.slices if after else 0))

    def submitted() -> None:
        submit(rt, batch)

    def ended() -> None:
        after = track(rt, [batch])[batch]
        while after is None or after.verb != "fetch":
            time.sleep(0.05)
            after = track(rt, [batch])[batch]
        fetched()

    def delivered() -> None:
        for number in slices:
            deliver(rt, batch, number, HOST)

    return [submitted, ended, delivered]
