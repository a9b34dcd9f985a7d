"""What the buffers tell: plain values, read from what Redis holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lowtide.settings import Thresholds


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of requests that were appended.

    Attributes:
        added: How many are new in a buffer.
        refused: How many were known already.
        sealed: Ids of the batches that this append sealed.
    """

    added: int
    refused: int
    sealed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """A batch that is sealed and not yet dropped.

    Attributes:
        batch_id: Its id, of ours.
        lane: Lane key.
        sealed_at: Epoch seconds.
        requests: How many lines.
        size: Bytes of its file.
        tokens: Estimated input tokens.
    """

    batch_id: str
    lane: str
    sealed_at: float
    requests: int
    size: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Where:
    """Where the latest request of a task is.

    Attributes:
        custom_id: Of that request.
        batch_id: Its batch, or what its open buffer will become.
        position: Its place in there, from 0.
        retries: Which try of the task it belongs to, from 0.
        step: Which request of that try it is, from 0.
        lane: Lane key; None when the batch's summary is gone.
        state: "BUFFERED", "SEALED", or as the pipeline set it; None when the summary is gone.
        requests: How many the batch has; None while it is open.
        provider_batch_id: The provider's id, once submitted.
        expected_end: Epoch seconds, once known.
        summary: All that is noted of the batch.
    """

    custom_id: str
    batch_id: str
    position: int
    retries: int
    step: int
    lane: str | None = None
    state: str | None = None
    requests: int | None = None
    provider_batch_id: str | None = None
    expected_end: float | None = None
    summary: Mapping[str, str] = field(default_factory=dict)

    def with_summary(self, raw: Mapping[bytes, bytes]) -> Where:
        """The same with what is noted of the batch."""
        summary = {name.decode(): value.decode() for name, value in raw.items()}
        requests, end = summary.get("requests"), summary.get("expected_end")
        return replace(
            self,
            lane=summary.get("lane"),
            state=summary.get("state"),
            requests=None if requests is None else int(requests),
            provider_batch_id=summary.get("provider_batch_id"),
            expected_end=None if end is None else float(end),
            summary=summary,
        )


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """How full a lane's open buffer is.

    Attributes:
        lane: Lane key.
        thresholds: When it is sealed.
        batch_id: What it will become; None when nothing waits, and then all below is 0 or None.
        requests: How many wait.
        size: Bytes of their file.
        tokens: Their estimated input tokens.
        opened_at: When the first came, epoch seconds.
        due: When it is sealed at the latest, epoch seconds.
    """

    lane: str
    thresholds: Thresholds
    batch_id: str | None = None
    requests: int = 0
    size: int = 0
    tokens: int = 0
    opened_at: float | None = None
    due: float | None = None

    @classmethod
    def of(cls, lane: str, head: Mapping[bytes, bytes], thresholds: Thresholds) -> LaneStatus:
        """From the HASH of the open buffer; an empty one when there is none."""
        if b"batch" not in head:
            return cls(lane, thresholds)
        return cls(
            lane,
            thresholds,
            head[b"batch"].decode(),
            int(head.get(b"requests", 0)),
            int(head.get(b"bytes", 0)),
            int(head.get(b"tokens", 0)),
            float(head.get(b"opened_at", 0.0)),
            float(head.get(b"due", 0.0)),
        )


def parse_sealed(batch_id: bytes, entry: bytes) -> SealedBatch:
    """A batch from its entry in the index of sealed ones."""
    lane, sealed_at, requests, size, tokens = entry.decode().split(" ")
    return SealedBatch(
        batch_id.decode(), lane, float(sealed_at), int(requests), int(size), int(tokens)
    )


def parse_where(task_id: str, fields: Mapping[bytes, bytes]) -> Where | None:
    """Where a task's latest request is, from the HASH of the task; None when that is empty."""
    if not fields:
        return None
    (retries, step), entry = max((_attempt(name), entry) for name, entry in fields.items())
    batch_id, position, custom_id = entry.decode().split(" ")
    name = custom_id or f"{task_id}.{retries}.{step}"
    return Where(name, batch_id, int(position), retries, step)


def _attempt(name: bytes) -> tuple[int, int]:
    retries, _, step = name.partition(b".")
    return int(retries), int(step)
