"""Token counts without a tokenizer: about four bytes a token, as the service's guide says."""

from __future__ import annotations

from typing import Any, NamedTuple


class Tokens(NamedTuple):
    """What one request used."""

    input: int
    output: int


def count(text: str) -> int:
    """Tokens of a text, at least one when it is not empty."""
    return (len(text.encode(errors="replace")) + 3) // 4


def chat_usage(tokens: Tokens) -> dict[str, Any]:
    """The ``usage`` of chat and legacy completions."""
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def response_usage(tokens: Tokens) -> dict[str, Any]:
    """The ``usage`` of the Responses API."""
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens.input + tokens.output,
    }


def cut(text: str, max_tokens: int | None) -> tuple[str, bool]:
    """The text within a token limit, and whether something was cut off."""
    if max_tokens is None or count(text) <= max_tokens:
        return text, False
    return text.encode()[: max_tokens * 4].decode(errors="ignore"), True
