"""Real prose to measure with: the descriptions of the packages that are installed here."""

from __future__ import annotations

import itertools
from functools import cache
from importlib import metadata


@cache
def prose() -> str:
    """All descriptions, in one long text."""
    found = {
        dist.metadata["Name"]: dist.metadata.get_payload() or dist.metadata["Description"] or ""
        for dist in metadata.distributions()
    }
    return "\n\n".join(str(found[name]) for name in sorted(found, key=str) if found[name])


def texts(count: int, size: int) -> list[str]:
    """`count` different pieces of about `size` characters; they overlap when there are many."""
    whole = prose()
    step = max(7, (len(whole) - size) // max(1, count))
    starts = itertools.cycle(range(0, len(whole) - size, step))
    return [f"No. {n}. {whole[at : at + size]}" for n, at in zip(range(count), starts)]  # noqa: B905 - starts never end
