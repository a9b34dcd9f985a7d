"""A provider in this process: a script says what it does, and it keeps the bill."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from lowtide.clock import Clock
from lowtide.errors import CreateAmbiguous, ProviderUnavailable
from lowtide.providers.protocol import BatchError, RemoteBatch


class ScriptedProvider:
    """What `providers.protocol.Provider` asks for, without a network.

    Attributes:
        faults: Method names whose next call does not reach the provider.
        creating: What the next create does: "done", "answer lost", "request lost" or "late".
        lag: Seconds for which a new batch is not listed.
        billed: custom_id → how often it was paid for.
        in_flight: Creates that have not arrived yet.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._made = 0
        self.files: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.batches: dict[str, RemoteBatch] = {}
        self.faults: set[str] = set()
        self.creating = "done"
        self.lag = 0.0
        self.billed: Counter[str] = Counter()
        self.in_flight: list[tuple[str, str]] = []

    def upload(self, path: Path, *, batch_id: str) -> str:
        self._reach("upload")
        file_id = self._id("file")
        self.files[file_id] = path.read_bytes()
        self.names[file_id] = f"{batch_id}.jsonl"
        return file_id

    def create(self, file_id: str, *, endpoint: str, batch_id: str) -> RemoteBatch:
        self._reach("create")
        how, self.creating = self.creating, "done"
        if how == "late":
            self.in_flight.append((file_id, batch_id))
        elif how != "request lost":
            made = self._make(file_id, batch_id)
            if how == "done":
                return made
        raise CreateAmbiguous("no answer")

    def arrive(self) -> None:
        """A create that was under way reaches the provider."""
        self._make(*self.in_flight.pop(0))

    def adopt(
        self, batch_id: str, *, since: float, input_file_id: str | None = None
    ) -> RemoteBatch | None:
        self._reach("adopt")
        for remote in self.batches.values():
            listed = (remote.created_at or 0.0) + self.lag <= self._clock.now()
            if listed and (remote.metadata["b"], remote.input_file_id) == (batch_id, input_file_id):
                return remote
        return None

    def uploaded(self, batch_id: str, *, since: float) -> list[str]:
        self._reach("uploaded")
        return [file for file, name in self.names.items() if name == f"{batch_id}.jsonl"]

    def status(self, provider_batch_id: str) -> RemoteBatch:
        self._reach("status")
        return self.batches[provider_batch_id]

    def statuses(self, provider_batch_ids: Iterable[str]) -> dict[str, RemoteBatch]:
        self._reach("statuses")
        return {each: self.batches[each] for each in provider_batch_ids}

    def download(self, file_id: str, path: Path) -> int:
        self._reach("download")
        return path.write_bytes(self.files[file_id])

    def cancel(self, provider_batch_id: str) -> None:
        self._reach("cancel")

    def delete_file(self, file_id: str) -> None:
        self._reach("delete_file")
        self.files.pop(file_id, None)
        self.names.pop(file_id, None)

    def running(self) -> list[RemoteBatch]:
        """The batches that have not ended."""
        return [remote for remote in self.batches.values() if not remote.ended]

    def fail(self, remote: RemoteBatch, code: str, line: int | None) -> None:
        """Fails a batch's validation."""
        error = BatchError(code, line, f"refused: {code}")
        self._end(remote, status="failed", errors=(error,))

    def run(self, remote: RemoteBatch, fates: list[str], status: str) -> None:
        """Runs a batch; each line meets one of `fates` in turn, the last for all that are left.

        Args:
            fates: "answered", "failed" (500), "refused" (400) or "silent" (neither ran nor told).
            status: Its end: "completed", "expired" or "cancelled".
        """
        output, errors = [], []
        lines = self.files[str(remote.input_file_id)].splitlines()
        for number, line in enumerate(lines):
            request = orjson.loads(line)
            fate = fates[min(number, len(fates) - 1)]
            if fate == "answered":
                self.billed[request["custom_id"]] += 1
                output.append(_line(request["custom_id"], 200, answer(request["body"])))
            elif fate != "silent":
                code = {"failed": 500, "refused": 400}[fate]
                body = {"error": {"message": "no", "code": fate, "type": "x", "param": None}}
                errors.append(_line(request["custom_id"], code, body))
        self._end(
            remote,
            status=status,
            output_file_id=self._keep(output),
            error_file_id=self._keep(errors),
        )

    def _make(self, file_id: str, batch_id: str) -> RemoteBatch:
        made = RemoteBatch(
            self._id("batch"),
            "in_progress",
            input_file_id=file_id,
            created_at=self._clock.now(),
            metadata={"b": batch_id},
        )
        self.batches[made.id] = made
        if file_id not in self.files:
            self.fail(made, "invalid_request", None)
        return self.batches[made.id]

    def _end(self, remote: RemoteBatch, **changes: Any) -> None:
        self.batches[remote.id] = dataclasses.replace(remote, ended_at=self._clock.now(), **changes)

    def _keep(self, lines: list[bytes]) -> str | None:
        if not lines:
            return None
        file_id = self._id("file")
        self.files[file_id] = b"\n".join(lines) + b"\n"
        return file_id

    def _reach(self, method: str) -> None:
        if method in self.faults:
            self.faults.discard(method)
            raise ProviderUnavailable(f"{method} did not reach the provider", {"retry_after": 1.0})

    def _id(self, kind: str) -> str:
        self._made += 1
        return f"{kind}-{self._made}"


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """What the provider answers: the prompt, so that a mixed-up answer shows."""
    text = body["messages"][0]["content"]
    return {
        "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def _line(custom_id: str, status: int, body: dict[str, Any]) -> bytes:
    response = {"status_code": status, "request_id": "r", "body": body}
    return orjson.dumps({"custom_id": custom_id, "response": response, "error": None})
