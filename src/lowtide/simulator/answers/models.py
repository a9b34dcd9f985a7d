"""Model names: which exist, and to which dated snapshot they resolve."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

_SNAPSHOTS = {
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "gpt-5-nano": "gpt-5-nano-2025-08-07",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-3.5-turbo": "gpt-3.5-turbo-0125",
    "o3": "o3-2025-04-16",
    "o3-mini": "o3-mini-2025-01-31",
    "o4-mini": "o4-mini-2025-04-16",
    "omni-moderation-latest": "omni-moderation-2024-09-26",
}
DEFAULT_MODERATION = "omni-moderation-latest"


def snapshot(model: str) -> str:
    """The dated name that answers carry; a name that is dated, or unknown, stays as it is."""
    return _SNAPSHOTS.get(model, model)


@lru_cache(maxsize=1024)
def exists(model: str, patterns: Sequence[str]) -> bool:
    """Does the simulator serve this model? ``patterns`` are shell patterns."""
    return any(fnmatchcase(model, pattern) for pattern in patterns)
