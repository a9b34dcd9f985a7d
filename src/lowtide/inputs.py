"""Embedding inputs: a provider limits them for one request, and for all of a batch together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from lowtide.calls import EMBEDDINGS, Call
from lowtide.errors import InvalidRequest
from lowtide.request import unpack

if TYPE_CHECKING:
    from lowtide.ledger import BatchRow
    from lowtide.providers.profiles import Profile
    from lowtide.runtime import Runtime

# An input takes at least so many bytes of a file: `"a",` or `[1],`.
_LEAST_BYTES = 4


def count(endpoint: str, body: Mapping[str, Any]) -> int:
    """How many inputs a request has for which embeddings are made; 0 at other endpoints."""
    if endpoint != EMBEDDINGS:
        return 0
    call = Call(endpoint, dict(body))
    return len(body["input"]) if call.many else 1


def check(profile: Profile, call: Call) -> None:
    """Refuses a call with more inputs than the service takes in one request.

    Raises:
        InvalidRequest: It has too many.
    """
    found = count(call.endpoint, call.body)
    if found > profile.max_inputs:
        raise InvalidRequest(
            f"The request has {found:,} inputs; {profile.name} takes {profile.max_inputs:,} in one "
            "request: make several calls of it.",
            {"param": "input", "limit": profile.max_inputs},
        )


def most_of_batch(rt: Runtime, batch: BatchRow) -> int | None:
    """How many inputs a part of a batch may have that has too many; None when it has not."""
    profile = rt.settings.profile(batch.account)
    most = profile.max_batch_inputs
    fits = batch.requests * profile.max_inputs <= most or batch.bytes <= most * _LEAST_BYTES
    if batch.endpoint != EMBEDDINGS or fits:
        return None
    found = 0
    for chunk in rt.ledger.lines(batch.id):
        found += sum(of_line(batch, custom_id, blob) for custom_id, blob in chunk)
    return most if found > most else None


def of_line(batch: BatchRow, custom_id: str, blob: bytes) -> int:
    """How many inputs a stored request of a batch has."""
    request = unpack(custom_id, batch.to_lane(), blob)
    return count(batch.endpoint, orjson.loads(request.body))
