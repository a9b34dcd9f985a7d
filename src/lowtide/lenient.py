"""Lenient JSON: what a provider says, though it holds what strict JSON cannot."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson


def loads(raw: bytes) -> Any:
    """The value of `raw`; None also when it cannot be read.

    Half an emoji (a lone surrogate), a wrong byte, NaN or 1e999 make nothing unreadable that is
    JSON but for them: an answer with them is paid for. In their places are "?" and null.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        data = json.loads(
            raw.decode("utf-8", "replace"), parse_constant=lambda _: None, parse_float=_finite
        )
    except (ValueError, RecursionError):
        return None
    return mended(data)


def mended(data: Any) -> Any:
    """Parsed JSON with "?" for each half of an emoji; None when it cannot be written."""
    try:
        return orjson.loads(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None
