"""Files and batches as the simulator keeps them, and as the API shows them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

BATCH_ENDPOINTS = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)
DAY = 86_400.0
_UNITS = {"h": 3_600.0, "d": DAY}
LIVE = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
_LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"


def new_file_id() -> str:
    """``file-`` and 22 letters, as the service makes them."""
    return "file-" + "".join(secrets.choice(_LETTERS) for _ in range(22))


def new_batch_id() -> str:
    """``batch_`` and 32 hex digits."""
    return "batch_" + secrets.token_hex(16)


@dataclass(slots=True)
class FileRecord:
    """A file; times are Unix seconds."""

    id: str
    account: str
    bytes: int
    created_at: float
    expires_at: float | None
    filename: str
    purpose: str
    status: str = "processed"

    def render(self) -> dict[str, Any]:
        """The File object of the API."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": int(self.created_at),
            "expires_at": None if self.expires_at is None else int(self.expires_at),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": self.status,
            "status_details": None,
        }


@dataclass(slots=True)
class Usage:
    """Tokens, as the service counts them in a batch."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def render(self) -> dict[str, Any]:
        """The ``usage`` object of a batch."""
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "total_tokens": self.input_tokens + self.output_tokens,
        }


@dataclass(slots=True)
class BatchRecord:
    """A batch with its plan (how long each phase takes) and its progress.

    ``done`` lines of the shuffled order have run; ``out_bytes`` and ``err_bytes`` say how much of
    the two result files belongs to them, so that a restart cuts off what a kill left half done.
    ``quirks`` are the faults that hold for the whole batch, chosen when it was created.
    """

    id: str
    account: str
    endpoint: str
    input_file_id: str
    created_at: float
    completion_window: str = "24h"
    metadata: dict[str, str] | None = None
    output_expires_after: int | None = None
    seq: int = 0
    status: str = "validating"
    model: str | None = None
    enqueued_tokens: int = 0
    validating_s: float = 0.0
    working_s: float = 0.0
    finalizing_s: float = 0.0
    cancelling_s: float = 0.0
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    done: int = 0
    out_bytes: int = 0
    err_bytes: int = 0
    output_file_id: str = ""
    error_file_id: str = ""
    errors: list[dict[str, Any]] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    quirks: dict[str, Any] = field(default_factory=dict)
    cancel_at: float | None = None

    @property
    def live(self) -> bool:
        """Is there still something to happen?"""
        return self.status in LIVE

    @property
    def expires_at(self) -> float:
        """Unix time at which the completion window ends."""
        return (
            self.created_at
            + float(self.completion_window[:-1]) * _UNITS[self.completion_window[-1]]
        )

    def render(self) -> dict[str, Any]:
        """The Batch object of the API, with this batch's quirks applied."""
        shown = self._render_plain()
        if "unknown_status" in self.quirks and self.status == "in_progress":
            shown["status"] = self.quirks["unknown_status"]
        if "empty_ids" in self.quirks:
            for key in ("output_file_id", "error_file_id"):
                shown[key] = shown[key] or ""
        if "iso_timestamps" in self.quirks:
            shown.update({k: _iso(v) for k, v in shown.items() if k.endswith("_at") and v})
        if "upper_status" in self.quirks:
            shown["status"] = shown["status"].upper()
        if "omit_nulls" in self.quirks:
            shown = {k: v for k, v in shown.items() if v is not None}
        return shown

    def _render_plain(self) -> dict[str, Any]:
        cancelling = self.cancel_at is not None and self.live
        ended = not self.live
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": "cancelling" if cancelling else self.status,
            "output_file_id": (self.output_file_id or None) if ended else None,
            "error_file_id": (self.error_file_id or None) if ended else None,
            "created_at": int(self.created_at),
            "in_progress_at": _int(self.in_progress_at),
            "expires_at": int(self.expires_at),
            "finalizing_at": _int(self.finalizing_at),
            "completed_at": _int(self.completed_at),
            "failed_at": _int(self.failed_at),
            "expired_at": _int(self.expired_at),
            "cancelling_at": _int(self.cancel_at if cancelling else self.cancelling_at),
            "cancelled_at": _int(self.cancelled_at),
            "request_counts": {
                "total": self.total,
                "completed": self.completed,
                "failed": self.failed,
            },
            "usage": self.usage.render() if self.in_progress_at is not None else None,
            "metadata": self.metadata,
        }


def _int(value: float | None) -> int | None:
    return None if value is None else int(value)


def _iso(value: int) -> str:
    return datetime.fromtimestamp(value, UTC).isoformat().replace("+00:00", "Z")
