"""How long a batch takes: a duration, or a distribution of durations.

Written as text, so that a flag, a TOML file and a test say it in the same way:

====================================  =======================================================
``30s``, ``fixed:2h``, ``0``          always the same
``uniform:10s,2h``                    evenly between the two
``lognormal:30m,0.8``                 median 30 minutes, sigma 0.8 (long tail, as seen live)
``hours:0-7=10m;8-18=lognormal:2h,0.5;else=1h``   by the UTC hour at which the batch is created
====================================  =======================================================
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")


def seconds(text: str | float) -> float:
    """Read a duration: a number of seconds, ``250ms``, ``30s``, ``6h``, ``1h30m``.

    Raises:
        ValueError: when it is none of these.
    """
    if isinstance(text, (int, float)):
        if text < 0 or not math.isfinite(text):
            raise ValueError(f"a duration is not negative, and finite: {text}")
        return float(text)
    compact = text.strip().replace(" ", "")
    if not compact or _DURATION.sub("", compact):
        raise ValueError(f"not a duration: {text!r} (use 30s, 5m, 6h, 1d or seconds)")
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(compact))


@dataclass(frozen=True, slots=True)
class Turnaround:
    """A distribution of durations in seconds.

    Attributes:
        kind: ``fixed``, ``uniform``, ``lognormal`` or ``hours``.
        a: the value, the lower bound, or the median.
        b: the upper bound, or sigma.
        by_hour: for ``hours``: (first hour, last hour, distribution), tried in order.
        otherwise: for ``hours``: what holds in all other hours.
    """

    kind: str = "fixed"
    a: float = 0.0
    b: float = 0.0
    by_hour: tuple[tuple[int, int, Turnaround], ...] = ()
    otherwise: Turnaround | None = None

    def draw(self, rng: random.Random, at: float) -> float:
        """One duration for something that begins at Unix time ``at``."""
        if self.kind == "uniform":
            return rng.uniform(self.a, self.b)
        if self.kind == "lognormal":
            return rng.lognormvariate(math.log(self.a), self.b) if self.a > 0 else 0.0
        if self.kind == "hours":
            return self._at_hour(int(at // 3600) % 24).draw(rng, at)
        return self.a

    def _at_hour(self, hour: int) -> Turnaround:
        for first, last, inner in self.by_hour:
            if first <= hour <= last:
                return inner
        return self.otherwise or Turnaround()


AT_ONCE = Turnaround()


def parse(spec: str | float) -> Turnaround:
    """Read one of the forms in the module's table.

    Raises:
        ValueError: naming the part that cannot be read.
    """
    if isinstance(spec, (int, float)):
        return Turnaround(a=seconds(spec))
    kind, _, rest = spec.strip().partition(":")
    if kind == "uniform":
        low, high = _two(spec, rest)
        return Turnaround("uniform", seconds(low), seconds(high))
    if kind == "lognormal":
        median, sigma = _two(spec, rest)
        return Turnaround("lognormal", seconds(median), float(sigma))
    if kind == "hours":
        return _hours(rest)
    return Turnaround(a=seconds(rest if kind == "fixed" else spec))


def _two(spec: str, rest: str) -> tuple[str, str]:
    parts = rest.split(",")
    if len(parts) != 2:
        raise ValueError(f"two values expected after the colon: {spec!r}")
    return parts[0], parts[1]


def _hours(rest: str) -> Turnaround:
    spans: list[tuple[int, int, Turnaround]] = []
    otherwise: Turnaround | None = None
    for part in filter(None, rest.split(";")):
        hours, sep, inner = part.partition("=")
        if not sep:
            raise ValueError(f"HOURS=DISTRIBUTION expected: {part!r}")
        if hours.strip() == "else":
            otherwise = parse(inner)
            continue
        first, _, last = hours.partition("-")
        spans.append((int(first), int(last or first), parse(inner)))
    return Turnaround("hours", by_hour=tuple(spans), otherwise=otherwise)
