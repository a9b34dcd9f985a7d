"""Real text that every environment has: the descriptions of its installed packages."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import Distribution, distributions


@dataclass(frozen=True, slots=True)
class Description:
    """What a package says of itself.

    Attributes:
        package: Its name.
        text: Its long description, often the README, as Markdown or reStructuredText.
    """

    package: str
    text: str


def descriptions() -> list[Description]:
    """The description of every installed package that has one, by name."""
    found: dict[str, Description] = {}
    for distribution in distributions():
        name = distribution.metadata["Name"]
        text = _text(distribution)
        if name and text:
            found.setdefault(name.lower(), Description(name, text))
    return [found[name] for name in sorted(found)]


def _text(distribution: Distribution) -> str:
    meta = distribution.metadata.json
    return str(meta.get("description") or meta.get("summary") or "").strip()
