"""Submit: from a sealed buffer to the file that is uploaded, without the upload."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from redis import Redis

from benchmarks.alone import alone
from benchmarks.figure import Figure
from benchmarks.options import Options
from benchmarks.stack import stack
from benchmarks.texts import texts
from lowtide.lane import Lane

if TYPE_CHECKING:
    from lowtide.runtime import Runtime

_REQUESTS = 50_000
_SIZE = 3_600
_CHUNK = 1_000
_LINES = "bench:lines"
_LANE = Lane("default", "/v1/chat/completions", "gpt-5-mini")


def run(options: Options) -> Iterator[Figure]:
    """50,000 requests of 190 MB in all."""
    count = options.scaled(_REQUESTS)
    with stack(simulator=False) as running:
        os.environ["OPENAI_API_KEY"] = "sk-unused"
        os.environ |= {"BENCH_WAIT": "10h", "BENCH_BYTES": "200MB"}
        size = fill(running.client(9), count)
        copies, ours, least = [], [], []
        for _ in range(options.long_rounds + 1):
            copies.append(alone(copying, f"{running.redis}/9", str(running.folder / "copy.jsonl")))
            for work, seen in ((submitting, ours), (bare, least)):
                seen.append(alone(work, f"{running.redis}/9"))
                running.client(4).flushdb()
                shutil.rmtree(running.folder / "home")
        del os.environ["BENCH_WAIT"], os.environ["BENCH_BYTES"]
    what = f"submit {count:,} requests of {size / 1e6:.0f} MB: "
    yield Figure(
        what + "CPU of recording and writing the file",
        "copying the lines from Redis to a file",
        2.0,
        [each.cpu for each in ours[1:]],
        [each.cpu for each in copies[1:]],
        unit="s",
    )
    yield Figure(
        what + "CPU of the ledger's insert and of decompression alone",
        "copying the lines from Redis to a file",
        None,
        [each.cpu for each in least[1:]],
        [each.cpu for each in copies[1:]],
        unit="s",
    )
    memory = [each.memory for each in ours[1:]]
    yield Figure(what + "memory", "", 40.0, memory, unit="MB more")


def fill(redis: Redis, count: int) -> int:
    """Puts lines of a batch file into a list; how many bytes they have."""
    from lowtide.calls import chat
    from lowtide.request import Request, encode

    total, lines = 0, []
    for number, text in enumerate(texts(count, _SIZE)):
        call = chat(f"Summarise the text.\n\n{text}", model="gpt-5-mini")
        lane, body, tokens = encode(call, account="default")
        name = f"{uuid.uuid5(uuid.NAMESPACE_OID, str(number))}.0.0"
        lines.append(Request(name, name, "bench", lane, body, b"", tokens).line())
        total += len(lines[-1])
        if len(lines) == _CHUNK:
            redis.rpush(_LINES, *lines)
            lines = []
    if lines:
        redis.rpush(_LINES, *lines)
    return total


def copying(url: str, path: str) -> Callable[[], None]:
    """The baseline: the same bytes, as they are."""
    redis = Redis.from_url(url)
    count = redis.llen(_LINES)

    def work() -> None:
        with Path(path).open("wb") as file:
            for at in range(0, count, _CHUNK):
                file.writelines(redis.lrange(_LINES, at, at + _CHUNK - 1))

    return work


def submitting(url: str) -> Callable[[], None]:
    """The same requests in a sealed buffer, to be recorded and written."""
    from lowtide.recording import record
    from lowtide.submit import _spooled

    rt, batch_id = buffered(url)
    count = Redis.from_url(url).llen(_LINES)

    def work() -> None:
        batch = record(rt, batch_id)
        assert batch is not None
        with _spooled(rt, batch) as (_path, lines):
            assert lines == count

    return work


def bare(url: str) -> Callable[[], None]:
    """What cannot be left out: the requests' rows, and lines that are not compressed. Nothing is
    read from Redis or written to a file.
    """
    from lowtide.ledger import NewBatch, NewRequest
    from lowtide.request import _decompress, _head_end, _views, head_of

    rt, batch_id = buffered(url)
    lines = [line for page in rt.buffer.lines(batch_id) for line in page]
    rows = [
        NewRequest(name, head_of(name, blob).task_id, "bench", blob, 900) for name, blob in lines
    ]

    def work() -> None:
        rt.ledger.record(NewBatch(batch_id, _LANE, bytes=0, sealed_at=0.0), rows)
        for name, blob in lines:
            _decompress(name, blob, _head_end(name, blob), _views)

    return work


def buffered(url: str) -> tuple[Runtime, str]:
    """The runtime, and the id of a sealed batch that has the requests."""
    import orjson

    from benchmarks.batch_app import app
    from benchmarks.steps import sealed
    from lowtide import heap, runtime
    from lowtide.request import Request

    heap.keep()  # as a worker does
    rt = runtime.of(app)
    redis = Redis.from_url(url)
    for at in range(0, redis.llen(_LINES), _CHUNK):
        made = []
        for line in redis.lrange(_LINES, at, at + _CHUNK - 1):
            data = orjson.loads(line)
            body, name = orjson.dumps(data["body"]), data["custom_id"]
            # As an envelope does, it holds the prompt once more.
            envelope = orjson.dumps(data["body"]["messages"][-1]["content"])
            task_id = name.removesuffix(".0.0")
            made.append(Request(name, task_id, "bench", _LANE, body, envelope, 900))
        rt.buffer.append(made)
    rt.ledger.batches()
    full = rt.buffer.sealed()  # it may have reached its threshold
    return rt, full[0].batch_id if full else sealed(app)
