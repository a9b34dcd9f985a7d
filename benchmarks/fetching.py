"""Fetch: from the provider's file on disk to slices that wait to be delivered."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import orjson

from benchmarks.alone import alone
from benchmarks.figure import Figure
from benchmarks.options import Options
from benchmarks.stack import stack
from benchmarks.texts import texts

_REQUESTS = 50_000
_SIZE = 5_300


def run(options: Options) -> Iterator[Figure]:
    """50,000 lines of 300 MB in all."""
    count = options.scaled(_REQUESTS)
    with stack(simulator=False) as running:
        os.environ["OPENAI_API_KEY"] = "sk-unused"
        path = running.folder / "output.jsonl"
        fill(path, count)
        parsed, ours = [], []
        for _ in range(options.long_rounds + 1):
            fastest = min(alone(parsing, str(path), name).cpu for name in ("orjson", "msgspec"))
            parsed.append(fastest)
            ours.append(alone(fetching, str(path)))
            running.client(4).flushdb()
            shutil.rmtree(running.folder / "home")
        size = path.stat().st_size / 1e6
    what = f"fetch and settle {count:,} lines of {size:.0f} MB: "
    yield Figure(
        what + "CPU",
        "parsing the file with orjson or msgspec, the faster",
        2.0,
        [each.cpu for each in ours[1:]],
        parsed[1:],
        unit="s",
    )
    memory = [each.memory for each in ours[1:]]
    yield Figure(what + "memory", "", 60.0, memory, unit="MB more")


def fill(path: Path, count: int) -> None:
    """Writes an output file as the provider does."""
    with path.open("wb") as file:
        for number, text in enumerate(texts(count, _SIZE)):
            usage = {"prompt_tokens": 900, "completion_tokens": 1200, "total_tokens": 2100}
            choice = {"index": 0, "message": {"role": "assistant", "content": text}}
            body = {
                "id": f"chatcmpl-{number:08x}",
                "object": "chat.completion",
                "model": "gpt-5-mini-2025-08-07",
                "choices": [{**choice, "finish_reason": "stop"}],
                "usage": usage,
            }
            response = {"status_code": 200, "request_id": f"req_{number:x}", "body": body}
            line = {"id": f"b_{number:x}", "custom_id": name(number), "response": response}
            file.write(orjson.dumps({**line, "error": None}) + b"\n")


def name(number: int) -> str:
    """The custom_id of one line."""
    return f"{number:036x}.0.0"


def parsing(path: str, parser: str) -> Callable[[], None]:
    """The baseline: each line parsed."""
    loads = orjson.loads if parser == "orjson" else msgspec.json.decode

    def work() -> None:
        with Path(path).open("rb", buffering=1 << 20) as file:
            for line in file:
                loads(line)

    return work


def fetching(path: str) -> Callable[[], None]:
    """A batch that ended at the provider, its files at hand."""
    from benchmarks.batch_app import app
    from lowtide import heap, runtime
    from lowtide.fetch import fetch
    from lowtide.lane import Lane
    from lowtide.ledger import BatchState, NewBatch, NewRequest

    heap.keep()  # as a worker does
    rt = runtime.of(app)
    lane = Lane("default", "/v1/chat/completions", "gpt-5-mini")
    with Path(path).open("rb") as file:
        count = sum(1 for _ in file)
    rows = (
        NewRequest(custom_id=name(n), task_id=f"{n:036x}", task="bench", blob=b"x" * 200, tokens=1)
        for n in range(count)
    )
    rt.ledger.record(NewBatch("b1", lane, bytes=1, sealed_at=0.0), rows)
    lease = rt.ledger.lease("b1", "bench", 60.0)
    assert lease is not None
    rt.ledger.move(lease, BatchState.UPLOADED, input_file_id="f")
    rt.ledger.move(lease, BatchState.SUBMITTING)
    rt.ledger.move(lease, BatchState.SUBMITTED, provider_batch_id="p")
    done: dict[str, Any] = {"provider_status": "completed", "output_file_id": "o"}
    rt.ledger.move(lease, BatchState.ENDED, **done)
    rt.ledger.release(lease)

    def download(_file: str, to: Path) -> int:
        to.symlink_to(path)
        return 0

    rt.buffer.sealed()
    rt.slices.get("b1", 0)
    rt.provider = lambda _account: SimpleNamespace(download=download)  # type: ignore[method-assign,assignment,return-value]

    def work() -> None:
        assert fetch(rt, "b1") is not None

    return work
