"""Running the lines of a batch, and writing what became of them."""

from __future__ import annotations

import random
import secrets
from array import array
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from lowtide.simulator.answers import Answer, Answerer, body_hash
from lowtide.simulator.answers.usage import Tokens
from lowtide.simulator.files import FileShelf, LineReader
from lowtide.simulator.records import BatchRecord
from lowtide.simulator.store import Run

_UNFINISHED = {
    "batch_expired": "This request could not be executed before the completion window expired.",
    "batch_cancelled": "This request was not executed because the batch was cancelled.",
}


class LineFaults(Protocol):
    """What may go wrong with single lines, see ``lowtide.simulator.faults``."""

    def refuse(self, custom_id: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """A failure that takes the place of the answer: ``response`` and ``error``, or None."""
        ...

    def mangle(self, custom_id: str, line: dict[str, Any]) -> list[dict[str, Any]]:
        """The lines that are written for one answer: usually just it."""
        ...

    def keep(self) -> None:
        """Write down how often each fault has acted."""
        ...


@dataclass(slots=True)
class Slice:
    """What a slice of lines gave: text for both result files, and the runs to account for."""

    output: bytearray = field(default_factory=bytearray)
    errors: bytearray = field(default_factory=bytearray)
    runs: list[Run] = field(default_factory=list)


class Job:
    """The work of one batch: its lines in the shuffled order in which they are answered.

    Args:
        batch: in progress; its counts and usage are updated by ``run``.
        shelf: where the input is.
        offsets: the input's line index.
        seed: of the order; the same seed and batch number give the same order after a restart.
        answerer: who answers.
        faults: what goes wrong.
        threads: answer so many lines at the same time (for an upstream server).
    """

    def __init__(
        self,
        batch: BatchRecord,
        shelf: FileShelf,
        offsets: array[int],
        *,
        seed: int,
        answerer: Answerer,
        faults: LineFaults,
        threads: int = 1,
    ) -> None:
        self._reader = LineReader(shelf.path(batch.input_file_id), offsets)
        self._order = array("L", range(len(self._reader)))
        random.Random(f"{seed}/{batch.seq}").shuffle(self._order)  # noqa: S311 - has to repeat
        self._answerer = answerer
        self._faults = faults
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def close(self) -> None:
        """Give file and threads back."""
        self._reader.close()
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def run(self, batch: BatchRecord, stop: int, now: float) -> Slice:
        """Answer the lines from ``batch.done`` up to ``stop``."""
        made = Slice()
        newline = b"\r\n" if "crlf" in batch.quirks else b"\n"
        requests = [orjson.loads(self._reader.line(i)) for i in self._order[batch.done : stop]]
        for request, failure, answer in self._answers(batch, requests, now):
            line = _result(request["custom_id"], failure, answer)
            ok = failure is None and 200 <= answer.status < 300
            self._account(batch, made, request, failure, answer, ok=ok)
            sink = made.output if ok else made.errors
            for written in self._faults.mangle(request["custom_id"], line):
                sink += orjson.dumps(written)
                sink += newline
        batch.done = stop
        return made

    def _answers(
        self, batch: BatchRecord, requests: list[dict[str, Any]], now: float
    ) -> Iterable[tuple[dict[str, Any], dict[str, Any] | None, Answer]]:
        failures = [self._faults.refuse(r["custom_id"], r["body"]) for r in requests]

        def one(index: int) -> Answer:
            if failures[index] is not None:
                return _NOTHING
            return self._answerer.answer(batch.endpoint, requests[index]["body"], now)

        indexes = range(len(requests))
        answers = self._pool.map(one, indexes) if self._pool else map(one, indexes)
        return zip(requests, failures, answers, strict=True)

    def _account(
        self,
        batch: BatchRecord,
        made: Slice,
        request: Mapping[str, Any],
        failure: dict[str, Any] | None,
        answer: Answer,
        *,
        ok: bool,
    ) -> None:
        body = request["body"]
        status = answer.status if failure is None else _status_of(failure)
        made.runs.append(
            Run(
                "batch", batch.id, request["custom_id"], body_hash(body), body.get("model"),
                status, int(ok), *answer.tokens,
            )
        )  # fmt: skip
        batch.usage.input_tokens += answer.tokens.input
        batch.usage.output_tokens += answer.tokens.output
        if ok:
            batch.completed += 1
        else:
            batch.failed += 1

    def unfinished(self, batch: BatchRecord, code: str) -> Iterable[bytes]:
        """Error lines for all that has not run, in pieces; ``code`` says why it has not."""
        error = {"code": code, "message": _UNFINISHED[code]}
        newline = b"\r\n" if "crlf" in batch.quirks else b"\n"
        for index in self._order[batch.done :]:
            custom_id = orjson.loads(self._reader.line(index))["custom_id"]
            yield orjson.dumps(_line(custom_id, None, error)) + newline


_NOTHING = Answer(0, {}, Tokens(0, 0))


def _result(custom_id: str, failure: dict[str, Any] | None, answer: Answer) -> dict[str, Any]:
    if failure is not None:
        return _line(custom_id, failure["response"], failure["error"])
    response = {
        "status_code": answer.status,
        "request_id": secrets.token_hex(16),
        "body": answer.body,
    }
    return _line(custom_id, response, None)


def _line(
    custom_id: str, response: dict[str, Any] | None, error: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "id": f"batch_req_{secrets.token_hex(16)}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }


def _status_of(failure: Mapping[str, Any]) -> int:
    response = failure["response"]
    return int(response["status_code"]) if response else 0
