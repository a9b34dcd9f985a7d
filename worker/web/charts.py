"""Small charts as SVG in the page: no script, no picture; a table beside them says the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from lowtide.shown import dollars, duration

_WIDTH, _HEIGHT, _BOTTOM, _TOP = 1060, 240, 24, 8
_LETTER, _GAP = 7.5, 8  # the width of a letter, at least, and between a label and what is beside it
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, slots=True)
class Bar:
    """One column: what was paid, and what was saved on top of it."""

    label: str
    cost: float
    saving: float


def money_bars(bars: Sequence[Bar], title: str) -> Markup:
    """Columns of cost with the saving stacked on them."""
    top = nice(max((bar.cost + bar.saving for bar in bars), default=0.0))
    plot = _HEIGHT - _BOTTOM - _TOP
    # The scale is on the right, beside the last days: a narrow screen shows that end first.
    scale = [(share, dollars(top * share) if share else "$0") for share in (0.0, 0.5, 1.0)]
    right = _WIDTH - _GAP - _LETTER * max(len(label) for _, label in scale)
    step = (right - 2 * _GAP) / max(len(bars), 1)
    parts = [_axis(scale, plot, right)]
    every = max(1, math.ceil(len(bars) / 10))
    for number, bar in enumerate(bars):
        x = _GAP + number * step
        paid = plot * bar.cost / top
        saved = plot * bar.saving / top
        floor = _TOP + plot
        told = escape(f"{bar.label}: paid {dollars(bar.cost)}, saved {dollars(bar.saving)}")
        wide = f'x="{x + step * 0.15:.1f}" width="{step * 0.7:.1f}"'
        parts.append(
            f'<g><title>{told}</title><rect class="paid" {wide} y="{floor - paid:.1f}" '
            f'height="{paid:.1f}"/><rect class="saved" {wide} y="{floor - paid - saved:.1f}" '
            f'height="{saved:.1f}"/></g>'
        )
        if number % every == 0:
            parts.append(
                f'<text x="{x + step / 2:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">'
                f"{escape(bar.label[-5:])}</text>"
            )
    return _svg(title, parts, _HEIGHT)


def heat_map(cells: Sequence[Sequence[float | None]], title: str) -> Markup:
    """Days down, hours across; the darker a cell, the longer batches took.

    Args:
        cells: For each day of the week from Monday, 24 durations in seconds; None = no batch.
        title: What it shows, for those who cannot see it.
    """
    known = sorted(value for row in cells for value in row if value is not None)
    # One batch that took a week, or a second, shall not make all others look alike.
    rare = len(known) // 20
    low, high = (known[rare], known[-rare - 1]) if known else (0.0, 0.0)
    size, left, top = 42, 44, 22
    parts = [
        f'<text x="{left + hour * size + size / 2}" y="14" text-anchor="middle">{hour}</text>'
        for hour in range(0, 24, 3)
    ]
    for day, row in enumerate(cells):
        y = top + day * size
        parts.append(f'<text x="0" y="{y + 25}">{DAYS[day]}</text>')
        for hour, value in enumerate(row):
            level = "none" if value is None else f"h{_level(value, low, high)}"
            told = "no batch" if value is None else duration(value)
            told = f"{DAYS[day]} {hour}:00 UTC: {told}"
            parts.append(
                f'<rect class="cell {level}" x="{left + hour * size}" y="{y}" width="{size - 3}" '
                f'height="{size - 3}" rx="4"><title>{told}</title></rect>'
            )
    return _svg(title, parts, top + 7 * size, left + 24 * size)


def nice(value: float) -> float:
    """The next round number that is not less."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * 0.999)


def _level(value: float, low: float, high: float) -> int:
    """0 to 5 on a scale of ratios: an hour more matters after one hour, not after twenty."""
    if high <= low or low <= 0:
        return 0
    if value <= low:
        return 0
    return min(5, int(6 * math.log(value / low) / math.log(high / low)))


def _axis(scale: Sequence[tuple[float, str]], plot: float, right: float) -> str:
    lines = []
    for share, label in scale:
        y = _TOP + plot * (1 - share)
        lines.append(
            f'<line class="grid" x1="0" x2="{right - _GAP:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{right:.1f}" y="{y + 4:.1f}">{label}</text>'
        )
    return "".join(lines)


def _svg(title: str, parts: Sequence[str], height: float, width: float = _WIDTH) -> Markup:
    # Everything in `parts` is made of numbers and escaped text.
    inside = "".join(parts)
    return Markup(  # noqa: S704
        f'<svg class="chart" role="img" viewBox="0 0 {width} {height}" '
        f'aria-label="{escape(title)}">{inside}</svg>'
    )
