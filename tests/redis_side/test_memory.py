"""What a waiting request costs in Redis beside its own bytes."""

from __future__ import annotations

import os
from typing import Any
from uuid import uuid4

import orjson
import pytest
from redis import Redis

from lowtide.buffer import Buffer
from lowtide.request import Request, pack
from tests.redis_side.support import HEAD, LANE, LINES

REQUESTS = 4000
MOST_OVERHEAD = 340  # bytes a request: its field in the lines, its task key, two custom_ids


@pytest.mark.parametrize("prompt", [50, 1500])
def test_memory_per_waiting_request(redis: Redis, buffer: Buffer, prompt: int) -> None:
    client: Any = redis
    requests = [_request(prompt) for _ in range(REQUESTS)]
    buffer.append(requests[:1])
    before = client.info("memory")["used_memory_dataset"]

    buffer.append(requests)

    whole = client.info("memory")["used_memory_dataset"] - before
    blobs = sum(len(pack(request)) for request in requests)
    keys = [LINES, HEAD, f"task:{requests[0].task_id}"]
    lines, head, task = (client.memory_usage("{lowtide}:" + key, samples=0) for key in keys)
    print(f"{whole / REQUESTS:.0f} bytes a request, {blobs / REQUESTS:.0f} of them its blob")
    assert (lines - blobs) / REQUESTS + task < MOST_OVERHEAD
    assert (whole - blobs) / REQUESTS < MOST_OVERHEAD
    assert head < 400


def _request(prompt: int) -> Request:
    task_id = str(uuid4())
    noise = os.urandom(prompt // 2).hex()
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": noise}]})
    return Request(f"{task_id}.0.0", task_id, "tasks.summarize", LANE, body, b"", 20)
