"""What many requests a day need: `python -m benchmarks.scale` writes the tables of docs/scale.md.

A day is simulated on a virtual clock: requests come as a day's load does, buffers are sealed by
requests or age, batches take as long as providers do, and `lowtide.decide` says when each is
looked at. What is counted is what costs: requests, batches, looks. The costs are those
that `python -m benchmarks` measured.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from dataclasses import dataclass

from benchmarks.report import DOCS
from lowtide.decide import expected_end, next_poll
from lowtide.settings import Settings

DAY = 86_400
_BEGIN, _END = "<!-- simulated -->", "<!-- end of simulated -->"
_STEP = 10  # seconds of the virtual clock
_PEAK = 2.0  # the busiest hour against the day's mean
_TURNAROUND, _SPREAD = 2 * 3600.0, 0.4
# Measured on this project's machine; µs of CPU unless said.
ACCEPT_MANY, THROUGH = 250.0, 330.0
BATCH, LOOK = 60_000.0, 8_000.0


@dataclass(slots=True)
class Day:
    """What one day of so many requests made.

    Attributes:
        batches: Batches at the provider.
        looks: Status calls.
        waiting: Most requests in buffers at a time.
        away: Most requests in batches at the provider at a time.
        flying: Most batches at the provider at a time.
    """

    requests: int = 0
    batches: int = 0
    looks: int = 0
    waiting: int = 0
    away: int = 0
    flying: int = 0

    @property
    def cpu(self) -> float:
        """Seconds of CPU of all workers, calls sent by `delay_many`."""
        each = self.requests * (ACCEPT_MANY + THROUGH)
        return (each + self.batches * BATCH + self.looks * LOOK) / 1e6


def simulate(requests: int, lanes: int, seed: int = 1) -> Day:
    """One day and the time until its last batch has ended."""
    chance = random.Random(seed)
    day, settings = Day(requests), Settings()
    buffers, opened = [0] * lanes, [0.0] * lanes
    flying: list[tuple[float, int]] = []
    away, owed = 0, 0.0
    known: list[float] = []
    for now in range(0, DAY, _STEP):
        while flying and flying[0][0] <= now:
            away -= heapq.heappop(flying)[1]
        owed += requests * _share(now) * _STEP
        came, owed = int(owed), owed - int(owed)
        for lane in range(lanes):
            fresh = came // lanes + (chance.random() < (came % lanes) / lanes)
            if fresh and not buffers[lane]:
                opened[lane] = now
            buffers[lane] += fresh
            while buffers[lane] and (
                buffers[lane] >= settings.max_requests or now - opened[lane] >= settings.max_wait
            ):
                size = min(buffers[lane], settings.max_requests)
                buffers[lane] -= size
                opened[lane] = now
                took = min(_TURNAROUND * chance.lognormvariate(0, _SPREAD), DAY)
                day.batches += 1
                day.looks += _looks(took, known)
                known = [*known[-19:], took]
                heapq.heappush(flying, (now + took, size))
                away += size
        day.waiting = max(day.waiting, sum(buffers))
        day.away, day.flying = max(day.away, away), max(day.flying, len(flying))
    return day


def _share(now: int) -> float:
    """The share of a day's requests that comes in one second: a wave with its peak at noon."""
    return (1 + (_PEAK - 1) * math.cos(2 * math.pi * (now / DAY - 0.5))) / DAY


def _looks(took: float, known: list[float]) -> int:
    now, looks, expected = 0.0, 0, expected_end(0.0, known)
    while now < took:
        now = next_poll(now, 0.0, expected, shortest=5.0, longest=1800.0)
        looks += 1
    return looks


def exponents(days: list[Day], what: str) -> list[float]:
    """How `what` grows from each day to the next: 1 is as the requests, 0 is not at all."""
    return [
        math.log(max(getattr(b, what), 1e-9) / max(getattr(a, what), 1e-9))
        / math.log(b.requests / a.requests)
        for a, b in itertools.pairwise(days)
    ]


def main() -> None:
    """Simulates and writes."""
    days = [simulate(10**power, lanes=4) for power in range(4, 10)]
    names = ("requests a day", "batches", "status calls", "most waiting", "most on their way")
    lines = [
        f"| {' | '.join(names)} | batches at a time | worker CPU h |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {day.requests:,} | {day.batches:,} | {day.looks:,} | {day.waiting:,} | {day.away:,} "
        f"| {day.flying:,} | {day.cpu / 3600:,.2f} |"
        for day in days
    ]
    lines += ["", "| from → to | batches | status calls | waiting | on their way | CPU |"]
    lines += ["|---|---|---|---|---|---|"]
    columns = [exponents(days, what) for what in ("batches", "looks", "waiting", "away", "cpu")]
    for number, (a, b) in enumerate(itertools.pairwise(days)):
        cells = " | ".join(f"{column[number]:.2f}" for column in columns)
        lines.append(f"| {a.requests:,} → {b.requests:,} | {cells} |")
    path = DOCS / "scale.md"
    before, _, rest = path.read_text().partition(_BEGIN)
    path.write_text(f"{before}{_BEGIN}\n" + "\n".join(lines) + f"\n{_END}{rest.partition(_END)[2]}")


if __name__ == "__main__":
    main()
