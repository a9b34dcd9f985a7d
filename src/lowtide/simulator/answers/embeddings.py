"""Answers of ``/v1/embeddings``: hashed words, so that texts with common words are near."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from lowtide.simulator.answers.text import words
from lowtide.simulator.answers.usage import Tokens, count
from lowtide.simulator.errors import ApiError, invalid_type, invalid_value, missing

_SIZES = {"text-embedding-3-large": 3072}
_DEFAULT_SIZE = 1536
_MAX_INPUTS = 2048
_PLACES = 4  # vector components that a word touches


def embedding(body: Mapping[str, Any], now: float) -> tuple[dict[str, Any], Tokens]:
    """Answer an embeddings request; the same text gives the same vector, always of length 1.

    Raises:
        ApiError: 400 for an input, a size or an encoding that the service refuses.
    """
    del now
    model = str(body["model"])
    inputs = _inputs(body.get("input"))
    size = _size(body, model)
    form = body.get("encoding_format", "float")
    if form not in ("float", "base64", None):
        raise invalid_value(
            "encoding_format",
            f"Invalid value: '{form}'. Supported values are: 'float' and 'base64'.",
        )
    data = []
    for index, text in enumerate(inputs):
        made: Any = vector(text, size)
        if form == "base64":
            made = base64.b64encode(struct.pack(f"<{size}f", *made)).decode()
        data.append({"object": "embedding", "index": index, "embedding": made})
    used = sum(map(count, inputs))
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }, Tokens(used, 0)


def vector(text: str, size: int) -> list[float]:
    """A unit vector for a text: each word adds to a few places that its hash names."""
    components = [0.0] * size
    for word in words(text[:20_000]) or [text]:
        for place, sign in _places(word):
            components[place % size] += sign
    norm = math.sqrt(sum(value * value for value in components if value))
    if norm == 0.0:  # all contributions met and cancelled
        components[0] = norm = 1.0
    return [value / norm if value else 0.0 for value in components]


@lru_cache(maxsize=8192)
def _places(word: str) -> tuple[tuple[int, float], ...]:
    digest = hashlib.blake2b(word.encode(errors="replace"), digest_size=4 * _PLACES).digest()
    numbers = struct.unpack(f"<{_PLACES}I", digest)
    return tuple((number >> 1, 1.0 if number & 1 else -1.0) for number in numbers)


def _inputs(given: Any) -> list[str]:
    if given is None:
        raise missing("input")
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list):
        raise invalid_type("input", "a string or an array", given)
    if given and all(isinstance(item, int) for item in given):  # one input, given as tokens
        given = [given]
    if not 0 < len(given) <= _MAX_INPUTS or "" in given:
        raise ApiError(
            400,
            f"'$.input' is invalid: 1 to {_MAX_INPUTS} inputs are expected, none of them empty.",
            param="input",
        )
    for item in given:
        if not isinstance(item, (str, list)):
            raise invalid_type("input", "a string or an array of integers", item)
    return [item if isinstance(item, str) else " ".join(map(str, item)) for item in given]


def _size(body: Mapping[str, Any], model: str) -> int:
    full = _SIZES.get(model, _DEFAULT_SIZE)
    size = body.get("dimensions")
    if size is None:
        return full
    if isinstance(size, bool) or not isinstance(size, int):
        raise invalid_type("dimensions", "an integer", size)
    if model == "text-embedding-ada-002":
        raise invalid_value("dimensions", "This model does not support specifying dimensions.")
    if not 1 <= size <= full:
        raise invalid_value(
            "dimensions", f"Invalid value for 'dimensions' = {size}. Must be between 1 and {full}."
        )
    return size
