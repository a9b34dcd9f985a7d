"""What a task demands of its inputs and answers: the options `errors_on`, `output_retries` and
`moderate`, checked when the task is made. Light to import.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

NOW = "now"
REASONS = ("refusal", "content_filter", "length")


def check(options: Mapping[str, Any]) -> None:
    """Refuses values that mean nothing.

    Raises:
        TypeError: A value is of another type.
        ValueError: `errors_on` names what is no reason, `output_retries` is negative, or
            `moderate` is none of its values.
    """
    moderate = options.get("moderate", False)
    if moderate not in (False, True, NOW):
        raise ValueError(f"moderate is True, False or {NOW!r}, not {moderate!r}")
    for reason in reasons(options.get("errors_on", ())):
        if reason not in REASONS:
            near = difflib.get_close_matches(str(reason), REASONS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(REASONS)}."
            raise ValueError(f"errors_on has no reason {reason!r}; {hint}")
    retries = options.get("output_retries", 0)
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise TypeError(f"output_retries is a number of times, not {retries!r}")
    if retries < 0:
        raise ValueError(f"output_retries cannot be negative, it is {retries}")


def reasons(errors_on: Any) -> tuple[str, ...]:
    """The reasons of `errors_on`, which may be one name or any collection of names."""
    if isinstance(errors_on, str):
        return (errors_on,)
    return tuple(sorted(errors_on, key=str))
