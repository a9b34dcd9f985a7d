"""Failed attempts of one request, as its error tells them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lowtide.ledger import Attempt

# In the line for people; the error's details have all of them.
_SHOWN = 6
_SHOWN_CHARACTERS = 80


def told(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """The attempts as JSON values, oldest first; see `LowtideError.attempts`."""
    return [
        {
            "at": _time(each.at),
            "batch": each.batch_id,
            "provider_batch": each.provider_batch_id,
            "status": each.status,
            "code": each.code,
            "message": each.message,
        }
        for each in attempts
    ]


def line(attempts: Sequence[Attempt]) -> str:
    """The attempts in one line of text, the last ones when there are many."""
    first = max(0, len(attempts) - _SHOWN)
    shown = [_one(number, each) for number, each in enumerate(attempts[first:], start=first + 1)]
    return "; ".join([*([f"{first} earlier ones"] if first else []), *shown])


def _one(number: int, attempt: Attempt) -> str:
    status = "" if attempt.status is None else f"{attempt.status} "
    said = " ".join((attempt.message or "").split()).rstrip(".")
    if len(said) > _SHOWN_CHARACTERS:
        said = f"{said[:_SHOWN_CHARACTERS]}…"
    where = attempt.provider_batch_id or attempt.batch_id
    words = f" ({said})" if said else ""
    return f"{number}. {_time(attempt.at)} in {where}: {status}{attempt.code or 'unknown'}{words}"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
