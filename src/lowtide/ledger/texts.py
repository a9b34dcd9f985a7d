"""A provider's texts as every database takes them: they can be anything."""

from __future__ import annotations

LONGEST = 2_000
"""Characters that are kept of a text, where nothing else is said."""


def clean(value: str, longest: int = LONGEST) -> str:
    """`value` without NUL, with "?" for each half of an emoji, cut to `longest` characters."""
    if not value.isascii() or len(value) > longest:
        value = value[:longest].encode("utf-8", "replace").decode()
    return value.replace("\0", "")
