"""Strict JSON: what an API body may hold, with errors that say where and never what."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from lowtide.errors import InvalidRequest

_MAX_DEPTH = 250
_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS


def to_json(body: Mapping[str, Any]) -> bytes:
    """`body` as one line of UTF-8 JSON, keys in the order given.

    Raises:
        InvalidRequest: A value is not JSON (NaN, a set, bytes, a lone surrogate, …).
    """
    try:
        encoded = orjson.dumps(body, option=_OPTIONS)
    except (TypeError, ValueError, RecursionError):
        # orjson's own message may quote the value, which may be a prompt.
        raise _refusal(next(_flaws(body, "body", 0), ("body", "is not JSON"))) from None
    # orjson writes NaN and infinities as null; only bodies with a null need the slow look.
    if b"null" in encoded:
        for flaw in _flaws(body, "body", 0):
            raise _refusal(flaw)
    return encoded


def _refusal(flaw: tuple[str, str]) -> InvalidRequest:
    where, why = flaw
    return InvalidRequest(
        f"The request is not JSON: {where} {why}.", {"code": "invalid_json", "param": where}
    )


def _flaws(value: Any, where: str, depth: int) -> Iterator[tuple[str, str]]:
    """Each place in `value` that is not JSON, with the reason."""
    if depth > _MAX_DEPTH:
        yield "body", f"is nested more than {_MAX_DEPTH} deep"
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield where, f"has a key of type {type(key).__name__}"
            yield from _flaws(item, f"{where}.{_shown(key)}", depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _flaws(item, f"{where}[{index}]", depth + 1)
    else:
        why = _scalar_flaw(value)
        if why:
            yield where, why


def _scalar_flaw(value: Any) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, which JSON cannot express"
    try:
        orjson.dumps(value, option=_OPTIONS)
    except (TypeError, ValueError):
        if isinstance(value, str):
            return "holds a lone surrogate, which UTF-8 cannot express"
        if isinstance(value, int):
            return "is an integer of more than 64 bits"
        return f"is of type {type(value).__name__}"
    return None


def _shown(key: Any) -> str:
    """A key as far as it can be shown: names of parameters are, free text is not."""
    name = key if isinstance(key, str) and key.isidentifier() and len(key) <= 40 else "?"
    return name if name.isascii() else "?"
