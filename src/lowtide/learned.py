"""What a dry run learns from the ledger, where there is one: it makes none, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lowtide.errors import LowtideError

if TYPE_CHECKING:
    from lowtide.ledger import Later, Ledger
    from lowtide.runtime import Runtime

_Found = TypeVar("_Found")


class Learned:
    """How earlier calls went; as if there were none where the ledger cannot be read.

    Args:
        rt: The runtime of the app.
    """

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._ratios: dict[str, float] = {}
        self._written: dict[str, dict[str, float]] = {}

    def ratio(self, model: str) -> float:
        """Real input tokens for each estimated one."""
        if model not in self._ratios:
            ledger = self._ledger
            self._ratios[model] = (ledger and _asked(partial(ledger.token_ratio, model))) or 1.0
        return self._ratios[model]

    def written(self, model: str, task: str) -> float | None:
        """Output tokens of one answer."""
        if model not in self._written:
            ledger = self._ledger
            self._written[model] = (ledger and _asked(partial(ledger.written, model))) or {}
        return self._written[model].get(task)

    def later(self, task: str) -> Later | None:
        """What one call of a generator task asks after its first request."""
        return _asked(partial(self._ledger.later, task)) if self._ledger else None

    @cached_property
    def _ledger(self) -> Ledger | None:
        from lowtide.ledger import Ledger

        url = self._rt.settings.ledger_url
        # To look into a file that is not there would make it.
        if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
            return None
        try:
            ledger = Ledger(url, self._rt.clock)
        except LowtideError:
            return None
        return None if ledger.check() else ledger


def _asked(query: Callable[[], _Found]) -> _Found | None:
    try:
        return query()
    except LowtideError:
        return None
