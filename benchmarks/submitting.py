"""Submit: from a sealed buffer to the file that is uploaded, without the upload."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from redis import Redis

from benchmarks.alone import alone
from benchmarks.figure import Figure
from benchmarks.options import Options
from benchmarks.stack import stack
from benchmarks.texts import texts

_REQUESTS = 50_000
_SIZE = 3_600
_CHUNK = 1_000
_LINES = "bench:lines"


def run(options: Options) -> Iterator[Figure]:
    """50,000 requests of 190 MB in all."""
    count = options.scaled(_REQUESTS)
    with stack(simulator=False) as running:
        os.environ["OPENAI_API_KEY"] = "sk-unused"
        os.environ |= {"BENCH_WAIT": "10h", "BENCH_BYTES": "200MB"}
        size = fill(running.client(9), count)
        copies, ours = [], []
        for _ in range(options.long_rounds + 1):
            copies.append(alone(copying, f"{running.redis}/9", str(running.folder / "copy.jsonl")))
            ours.append(alone(submitting, f"{running.redis}/9"))
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
    import orjson

    from benchmarks.batch_app import app
    from benchmarks.steps import sealed
    from lowtide import heap, runtime
    from lowtide.lane import Lane
    from lowtide.recording import record
    from lowtide.request import Request
    from lowtide.submit import _spooled

    heap.keep()  # as a worker does
    rt = runtime.of(app)
    redis = Redis.from_url(url)
    count = redis.llen(_LINES)
    lane = Lane("default", "/v1/chat/completions", "gpt-5-mini")
    for at in range(0, count, _CHUNK):
        made = []
        for line in redis.lrange(_LINES, at, at + _CHUNK - 1):
            data = orjson.loads(line)
            body, name = orjson.dumps(data["body"]), data["custom_id"]
            # As an envelope does, it holds the prompt once more.
            envelope = orjson.dumps(data["body"]["messages"][-1]["content"])
            task_id = name.removesuffix(".0.0")
            made.append(Request(name, task_id, "bench", lane, body, envelope, 900))
        rt.buffer.append(made)
    batch_id = sealed_id(rt) or sealed(app)

    def work() -> None:
        batch = record(rt, batch_id)
        assert batch is not None
        with _spooled(rt, batch) as (_path, lines):
            assert lines == count

    rt.ledger.batches()
    return work


def sealed_id(rt: object) -> str | None:
    """The batch that reached its threshold, if one did."""
    found = rt.buffer.sealed()  # type: ignore[attr-defined]
    return found[0].batch_id if found else None
