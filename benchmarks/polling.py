"""Looking at batches: how many status calls, and how late an end is seen. A virtual clock."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator

from benchmarks.figure import Figure
from benchmarks.options import Options
from lowtide.decide import expected_end, next_poll

_DAY = 86_400.0
_PEERS_INTERVAL = 15.0
_POLL_MIN, _POLL_MAX = 5.0, 1_800.0
_BATCHES = 2_000


def run(options: Options) -> Iterator[Figure]:
    """Batches of which nothing is known, and of lanes whose batches took about as long before."""
    calls = len(list(_looks(_DAY, None)))
    yield Figure(
        "status calls for a batch of 24 h",
        "a call every 15 s",
        1 / 50,
        [float(calls)],
        [_DAY / _PEERS_INTERVAL],
        unit="calls",
    )
    chance = random.Random(7)
    strange, known = [], []
    for _ in range(options.scaled(_BATCHES)):
        usual = chance.lognormvariate(8.5, 1.0)
        before = [usual * chance.lognormvariate(0, 0.15) for _ in range(20)]
        took = min(usual * chance.lognormvariate(0, 0.15), _DAY)
        strange.append(_late(took, None))
        known.append(_late(took, expected_end(0.0, before)))
    for what, late in (("nothing is known of", strange), ("20 batches were seen before", known)):
        yield Figure(
            f"poll: how late an end is seen, a lane where {what}",
            "",
            0.02 if late is known else None,
            [statistics.median(late)],
            unit="of the batch's age",
            note="computed: turnarounds log-normal, 1.4 h in the middle, ±15 % within a lane",
        )


def _looks(age: float, expected: float | None) -> Iterator[float]:
    now = 0.0
    while now < age:
        now = next_poll(now, 0.0, expected, shortest=_POLL_MIN, longest=_POLL_MAX)
        yield now


def _late(age: float, expected: float | None) -> float:
    return (list(_looks(age, expected))[-1] - age) / age
