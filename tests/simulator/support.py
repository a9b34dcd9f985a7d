"""Short ways to make batch files, to run them and to read what came back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from openai import OpenAI
from openai.types import Batch, FileObject

from lowtide.simulator import Steering

CHAT = "/v1/chat/completions"
MODEL = "gpt-5-mini"
TEXT = (
    "The tide rises twice a day on most coasts. The moon pulls the water and the tide follows it. "
    "Sailors read the tide tables before they leave the harbour. Nobody likes to run aground."
)


def chat_body(text: str = TEXT, **more: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Summarise in at most 20 words:\n\n{text}"}],
        **more,
    }


def line(custom_id: str, body: dict[str, Any] | None = None, url: str = CHAT) -> dict[str, Any]:
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": url,
        "body": chat_body() if body is None else body,
    }


def jsonl(lines: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(item) + b"\n" for item in lines)


def chat_lines(count: int) -> bytes:
    return jsonl([line(f"r{i}", chat_body(f"Number {i}. {TEXT}")) for i in range(count)])


def rows(content: bytes) -> list[dict[str, Any]]:
    """Result lines, split at the byte that ends lines and at no other."""
    return [json.loads(row) for row in content.split(b"\n") if row.strip()]


def counts(batch: Batch) -> tuple[int, int, int]:
    """Total, completed, failed."""
    found = batch.request_counts
    assert found is not None
    return found.total, found.completed, found.failed


def codes(batch: Batch) -> list[str | None]:
    """Codes of a failed validation."""
    assert batch.errors is not None
    return [error.code for error in batch.errors.data or []]


@dataclass
class Bench:
    """A server and a stock client of it."""

    server: Steering
    client: OpenAI

    def upload(self, data: bytes, name: str = "in.jsonl") -> FileObject:
        return self.client.files.create(file=(name, data), purpose="batch")

    def create(self, data: bytes, endpoint: Any = CHAT, **more: Any) -> Batch:
        file = self.upload(data)
        return self.client.batches.create(
            input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more
        )

    def run(self, data: bytes, endpoint: Any = CHAT, **more: Any) -> Batch:
        """Create a batch and look at it when all that is due has happened."""
        return self.settled(self.create(data, endpoint, **more))

    def settled(self, batch: Batch) -> Batch:
        self.server.settle()
        return self.client.batches.retrieve(batch.id)

    def content(self, file_id: str | None) -> bytes:
        assert file_id
        return self.client.files.content(file_id).content

    def rows(self, file_id: str | None) -> list[dict[str, Any]]:
        return rows(self.content(file_id))
