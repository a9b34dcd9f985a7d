"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured.

    Attributes:
        quick: Fewer rounds and smaller numbers, to see that all works.
        rounds: Rounds of a figure; its median counts.
        long_rounds: Rounds of a figure that takes minutes.
    """

    quick: bool = False
    rounds: int = 5
    long_rounds: int = 5

    def scaled(self, count: int) -> int:
        """`count`, or a tenth of it when quick."""
        return count // 10 if self.quick else count

    def note(self) -> str:
        """What a reader has to know of the size."""
        return "a tenth of the size" if self.quick else ""
