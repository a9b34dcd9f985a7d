"""What a benchmark gives: measured pairs, and whether their median reaches what was promised."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        name: What is measured.
        baseline: What it is compared with; "" for a figure that stands by itself.
        limit: What it has to be at most (at least, with `more`); None when it is only told.
        ours: Measured with lowtide, one value a round.
        theirs: The baseline's in the same rounds; empty for a figure that stands by itself.
        unit: Unit of the values.
        more: Whether more is better.
        note: What a reader should know.
    """

    name: str
    baseline: str
    limit: float | None
    ours: Sequence[float]
    theirs: Sequence[float] = ()
    unit: str = "µs"
    more: bool = False
    note: str = ""

    @property
    def values(self) -> list[float]:
        """The ratio of each round, or the value where there is no baseline."""
        if not self.theirs:
            return list(self.ours)
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether the median keeps the limit; None where there is none."""
        if self.limit is None:
            return None
        return self.value >= self.limit if self.more else self.value <= self.limit

    @property
    def margin(self) -> float | None:
        """The median as a share of the limit: 1 is just reached, less is better."""
        if self.limit is None or not self.value:
            return None
        return self.limit / self.value if self.more else self.value / self.limit


def alternate(
    rounds: int, baseline: Callable[[], float], ours: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Runs both in turn, so that a change of the machine meets both; the first pair warms up.

    Returns:
        (ours, theirs), one value a round.
    """
    baseline()
    ours()
    theirs_seen, ours_seen = [], []
    for number in range(rounds):
        pair = [(baseline, theirs_seen), (ours, ours_seen)]
        for measure, seen in pair if number % 2 == 0 else reversed(pair):
            seen.append(measure())
    return ours_seen, theirs_seen
