"""Durations and sizes as people write them; light to import."""

from __future__ import annotations

import re
from typing import Any

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SIZES = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)b?", re.IGNORECASE)


def parse_duration(value: Any) -> float:
    """Seconds from `30`, "30s", "1h30m", "250ms" or "7d".

    Raises:
        ValueError: `value` is none of these, or negative.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        text = str(value).strip().lower()
        parts = _DURATION.findall(text)
        if parts and _DURATION.sub("", text).strip() == "":
            seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        else:
            try:
                seconds = float(text)
            except ValueError:
                raise ValueError(f"{value!r} is not a duration; write 30s, 6h or seconds") from None
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{value!r} is not a duration of zero or more seconds")
    return seconds


def write_duration(seconds: float) -> str:
    """Seconds as `parse_duration` reads them: "250ms", "8s", "6h", "1h30m", "14d"."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms" if seconds else "0s"
    written, left = "", seconds
    for unit in ("d", "h", "m"):
        count, left = divmod(left, _UNITS[unit])
        written += f"{count:.0f}{unit}" if count else ""
    return written + (f"{left:g}s" if left or not written else "")


def parse_size(value: Any) -> int:
    """A count or bytes from `50000`, "100MB" or "50k" (powers of 1,000).

    Raises:
        ValueError: `value` is none of these.
    """
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"{value!r} is not a size; write 100MB, 50k or a number")
    return int(float(match[1]) * _SIZES[match[2].lower()])
