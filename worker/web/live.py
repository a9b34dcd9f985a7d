"""Tells open pages that something changed, so that they load themselves anew."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import StreamingResponse

from lowtide.errors import LowtideError
from lowtide.runtime import Runtime

_LOOK_EVERY = 1.0
_KEEP_ALIVE = 15.0
_MOST_LISTENERS = 200


class Changes:
    """Looks once a second while anybody listens; all listeners share the look.

    Args:
        rt: Whose lanes and batches are looked at.
    """

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._listeners: set[asyncio.Queue[str]] = set()
        self._task: asyncio.Task[None] | None = None
        self._over = False

    def stop(self) -> None:
        """Ends all streams."""
        self._over = True
        for queue in self._listeners:
            queue.put_nowait("")

    async def listen(self) -> AsyncIterator[str]:
        """Server-sent events: "change" whenever something did."""
        if len(self._listeners) >= _MOST_LISTENERS:
            yield "retry: 30000\n\n"
            return
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=4)
        self._listeners.add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            yield "retry: 3000\n\n"
            while not self._over:
                try:
                    mark = await asyncio.wait_for(queue.get(), _KEEP_ALIVE)
                except TimeoutError:
                    yield ": still here\n\n"
                else:
                    yield f"event: change\ndata: {mark}\n\n"
        finally:
            self._listeners.discard(queue)

    async def _look(self) -> None:
        last = ""
        while self._listeners and not self._over:
            mark = await asyncio.to_thread(self._mark)
            if mark != last:
                for queue in list(self._listeners):
                    if not queue.full():
                        queue.put_nowait(mark)
            last = mark
            await asyncio.sleep(_LOOK_EVERY)

    def _mark(self) -> str:
        """Differs when what the pages show differs."""
        rt = self._rt
        try:
            lanes = [(lane.lane, lane.requests, lane.batch_id) for lane in rt.buffer.lanes()]
            batches = rt.ledger.batch_counts()
        except (RedisError, LowtideError, OSError) as error:
            return type(error).__name__
        # Deliveries change rows that are too many to look at each second.
        delivering = any(state in ("ENDED", "FETCHED") for _, state, _, _ in batches)
        moving: Any = rt.clock.now() if delivering else 0
        seen = repr((lanes, batches, moving)).encode()
        return hashlib.blake2b(seen, digest_size=8).hexdigest()


async def stream(request: Request) -> StreamingResponse:
    """`/live`: the events."""
    changes: Changes = request.app.state.live
    return StreamingResponse(
        changes.listen(), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
    )
