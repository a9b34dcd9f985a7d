"""Tokens: estimated before sending, counted from what the provider says afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lowtide.calls import EMBEDDINGS

BYTES_PER_TOKEN = 3
_MARGIN = 1.1
_OVERHEAD = 8
# How each endpoint calls the most tokens that an answer may have.
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


def estimate(size: int) -> int:
    """Input tokens of a request body of `size` bytes, rather too many than too few.

    English has about four bytes a token, other scripts nearer three; images in data URLs are
    counted by their bytes. `max_tokens` does not matter: providers limit enqueued *input* tokens.
    """
    return int(size * _MARGIN) // BYTES_PER_TOKEN + _OVERHEAD


def most_written(endpoint: str, body: Mapping[str, Any]) -> int | None:
    """The most tokens that the answer to a request may have; None when it sets no limit."""
    if endpoint == EMBEDDINGS:
        return 0
    limit = next((body[name] for name in _LIMITS if body.get(name) is not None), None)
    return limit if isinstance(limit, int) else None


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one answer, whatever names the endpoint gives them.

    Attributes:
        input_tokens: All input tokens, cached ones included.
        cached_tokens: Those of `input_tokens` that were read from the provider's cache.
        output_tokens: All output tokens, reasoning included.
        reasoning_tokens: Those of `output_tokens` that were spent on reasoning.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    @classmethod
    def of(cls, usage: Any) -> Usage | None:
        """Reads the `usage` object of a chat, responses, embeddings or completions answer.

        Returns:
            None when the answer tells no usage, which is not the same as zero.
        """
        if not isinstance(usage, Mapping):
            return None
        given = _count(usage, "input_tokens", "prompt_tokens")
        if given is None:
            return None
        read = _details(usage, "input_tokens_details", "prompt_tokens_details")
        written = _details(usage, "output_tokens_details", "completion_tokens_details")
        return cls(
            input_tokens=given,
            cached_tokens=_count(read, "cached_tokens") or 0,
            output_tokens=_count(usage, "output_tokens", "completion_tokens") or 0,
            reasoning_tokens=_count(written, "reasoning_tokens") or 0,
        )

    def counts(self) -> dict[str, Any]:
        """The counts by the names of the attributes."""
        return {
            "input_tokens": self.input_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "reasoning_tokens": self.reasoning_tokens,
        }


def _details(usage: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        found = usage.get(name)
        if isinstance(found, Mapping):
            return found
    return {}


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        found = usage.get(name)
        if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**53:
            return found
    return None
