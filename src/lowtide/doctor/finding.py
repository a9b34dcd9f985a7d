"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, with a risk that somebody should know."""
    FAILURE = "failure"
    """Calls do not get through, or may get lost."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        part: What was looked at, such as "Redis persistence".
        detail: What was seen, on one line.
        advice: What to do; "" when nothing is to be done.
    """

    part: str
    level: Level
    detail: str
    advice: str = ""


def good(part: str, detail: str) -> Finding:
    """All is well."""
    return Finding(part, Level.OK, detail)


def risky(part: str, detail: str, advice: str) -> Finding:
    """It works, but."""
    return Finding(part, Level.WARNING, detail, advice)


def bad(part: str, detail: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(part, Level.FAILURE, detail, advice)


def first_line(error: object) -> str:
    """The first line of an error's text, or its type when it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
