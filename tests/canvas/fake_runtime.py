"""A stand-in for the pipeline: requests go into a Redis list, answers are made by a rule.

It lets the Celery side be tested by itself; the task `canvas.fan_out` answers what waits.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import orjson
from celery import Celery

from lowtide import runtime, settings
from lowtide.clock import SystemClock
from lowtide.connect import connect
from lowtide.envelope import Earlier, earlier
from lowtide.errors import LowtideError, RequestRejected
from lowtide.held import Where
from lowtide.ids import place
from lowtide.lane import Lane
from lowtide.own_task import OwnTask
from lowtide.request import Request, pack, unpack
from lowtide.resume import Resumption, resume

PENDING, SEEN, PACKED, HELD, RESUMED = (
    "canvas:pending",
    "canvas:seen",
    "canvas:packed",
    "canvas:held",
    "canvas:resumed",
)
KEPT = (PENDING, SEEN, PACKED, HELD, RESUMED)
_APPEND = """
local added = 0
for i = 1, #ARGV, 3 do
  if redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 2])
    redis.call('RPUSH', KEYS[2], ARGV[i])
    added = added + 1
  end
end
return added
"""


class FakeRuntime:
    def __init__(self, app: Celery) -> None:
        self.app = app
        self.settings = settings.load({"max_bytes": 1_000_000})
        self.clock = SystemClock()

    @property
    def redis_url(self) -> str:
        return os.environ["CANVAS_REDIS"]

    @property
    def redis(self) -> Any:
        return connect(self.redis_url)

    def accept(self, requests: Sequence[Request]) -> None:
        if self.redis.exists("canvas:down"):
            raise ConnectionError("the buffers' Redis is down")
        argv: list[Any] = []
        for request in requests:
            argv += [request.custom_id, request.lane.key, pack(request)]
        self.redis.eval(_APPEND, 3, SEEN, PENDING, PACKED, *argv)
        if self.redis.getdel("canvas:die") == str(os.getpid()).encode():
            os.kill(os.getpid(), signal.SIGKILL)

    def run_now(self, lane: Lane, body: dict[str, Any]) -> dict[str, Any]:
        outcome = answer(lane.endpoint, body)
        if isinstance(outcome, LowtideError):
            raise outcome
        return outcome[1]

    def where(self, task_id: str) -> Where | None:
        for custom_id, lane in self.redis.hgetall(SEEN).items():
            if custom_id.decode().startswith(task_id):
                name = custom_id.decode()
                return Where(name, "b1", 0, 0, 0, lane=lane.decode(), state="BUFFERED")
        return None

    def earlier(self, task_id: str, runs: range) -> Earlier:
        found = {
            place(custom_id.decode()): blob
            for custom_id, blob in self.redis.hgetall(PACKED).items()
            if custom_id.decode().startswith(f"{task_id}.")
        }
        return earlier(found[asked] for asked in sorted(found) if asked[0] in runs)


def answer(endpoint: str, body: dict[str, Any]) -> Any:
    """The outcome of a request: "R(text)", or what the provider says to a temperature of 99."""
    if body.get("temperature", 0) > 2:
        return RequestRejected("temperature is too high", {"code": "bad", "batch": "batch_1"})
    text = _text(body)
    if endpoint.endswith("embeddings"):
        given = body["input"]
        rows = [given] if isinstance(given, str) else given
        return endpoint, {
            "data": [{"index": i, "embedding": [float(len(row))]} for i, row in enumerate(rows)]
        }
    said = text if text.startswith("{") else f"R({text})"
    if endpoint.endswith("responses"):
        item = {"type": "message", "content": [{"type": "output_text", "text": said}]}
        return endpoint, {"status": "completed", "model": "m", "output": [item]}
    message = {"role": "assistant", "content": said}
    return endpoint, {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}


def _text(body: dict[str, Any]) -> str:
    if "messages" in body:
        return str(body["messages"][-1]["content"])
    given = body.get("input")
    return str(given if isinstance(given, str) else (given or [""])[-1])


def fan_out(self: Any) -> int:
    rt: Any = runtime.of(self.app)
    waiting = rt.redis.lpop(PENDING, 500) or []
    items = []
    for custom_id in waiting:
        name = custom_id.decode()
        lane = Lane.parse(rt.redis.hget(SEEN, name).decode())
        request = unpack(name, lane, rt.redis.hget(PACKED, name))
        outcome = answer(lane.endpoint, orjson.loads(request.body))
        items.append(Resumption(request, outcome))
    ends = resume(self.app, items, self.request.hostname)
    rt.accept([end.next for end in ends if end.next is not None])
    if ends:
        rt.redis.rpush(RESUMED, *[f"{end.custom_id} {end.state}" for end in ends])
    return len(items)


def install(app: Celery) -> FakeRuntime:
    """Gives `app` this runtime in the place where lowtide keeps its own."""
    known = app.__dict__.get("lowtide_runtime")
    if known is None:
        known = app.__dict__["lowtide_runtime"] = FakeRuntime(app)
        app.task(
            fan_out,
            name="canvas.fan_out",
            base=OwnTask,
            bind=True,
            shared=False,
        )
    return known
