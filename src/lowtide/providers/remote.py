"""Reads a provider's batch object, however loosely the provider keeps to the form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from lowtide.providers.protocol import BatchError, Counts, RemoteBatch
from lowtide.tokens import Usage

_END_TIMES = ("completed_at", "failed_at", "expired_at", "cancelled_at")
_SPELLINGS = {"canceled": "cancelled", "canceling": "cancelling"}


def remote_batch(data: Any) -> RemoteBatch | None:
    """The batch that `data` describes, None when it is not a batch with an id."""
    if not isinstance(data, Mapping) or not _text(data.get("id")):
        return None
    status = (_text(data.get("status")) or "unknown").lower()
    ends = [timestamp(data.get(name)) for name in _END_TIMES]
    metadata = data.get("metadata")
    return RemoteBatch(
        id=str(data["id"]),
        status=_SPELLINGS.get(status, status),
        input_file_id=_text(data.get("input_file_id")),
        output_file_id=_text(data.get("output_file_id")),
        error_file_id=_text(data.get("error_file_id")),
        created_at=timestamp(data.get("created_at")),
        ended_at=next((end for end in ends if end is not None), None),
        expires_at=timestamp(data.get("expires_at")),
        counts=_counts(data.get("request_counts")),
        errors=tuple(_errors(data.get("errors"))),
        usage=Usage.of(data.get("usage")),
        metadata={str(k): str(v) for k, v in metadata.items()}
        if isinstance(metadata, Mapping)
        else {},
        model=_text(data.get("model")),
    )


def timestamp(value: Any) -> float | None:
    """Seconds since the epoch from a number, a number in a string, or an ISO 8601 time."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        return _from_text(value.strip())
    if isinstance(value, int | float) and math.isfinite(value) and value > 0:
        return float(value)
    return None


def _from_text(value: str) -> float | None:
    try:
        return timestamp(float(value))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(value)
        # A time without a zone is the provider's, and providers run on UTC.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _counts(value: Any) -> Counts:
    if not isinstance(value, Mapping):
        return Counts()
    return Counts(*(_number(value.get(name)) or 0 for name in ("total", "completed", "failed")))


def _errors(value: Any) -> list[BatchError]:
    rows = value.get("data") if isinstance(value, Mapping) else value
    if not isinstance(rows, list):
        return []
    return [
        BatchError(
            code=_text(row.get("code")),
            line=_number(row.get("line")),
            message=_text(row.get("message")) or "",
            param=_text(row.get("param")),
        )
        for row in rows
        if isinstance(row, Mapping)
    ]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
