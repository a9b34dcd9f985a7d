"""The table of figures: in the terminal, in Markdown, and as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
_BEGIN, _END = "<!-- figures -->", "<!-- end of figures -->"
_ROW, _LEFT, _WIDE, _LEAST, _MOST = 18, 430, 420, 0.05, 10.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one module, and where and when they were measured."""

    module: str
    figures: Sequence[Figure]
    machine: str
    load: float
    day: str


def row(figure: Figure) -> tuple[str, str, str, str, str]:
    """A figure's cells: what, against what, measured, to reach, reached."""
    suffix = " x" if figure.theirs else f" {figure.unit}"
    sign = "≥" if figure.more else "≤"
    wanted = "" if figure.limit is None else f"{sign} {figure.limit:.3g}{suffix}"
    verdict = {True: "yes", False: "**no**", None: ""}[figure.reached]
    shown = f"{figure.value:.3g}{suffix}"
    if figure.theirs:
        shown += f" ({_middle(figure.ours)} : {_middle(figure.theirs)} {figure.unit})"
    return figure.name, figure.baseline or "-", shown, wanted or "-", verdict


def remember(measured: Measured) -> list[Measured]:
    """Keeps the figures of a module; gives those of all modules that were measured so far."""
    path = DOCS / "figures.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    known[measured.module] = asdict(measured)
    DOCS.mkdir(exist_ok=True)
    path.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    return [_read(each) for each in known.values()]


def write(all_measured: Sequence[Measured], order: Sequence[str]) -> None:
    """Writes the table into `docs/performance.md` and the picture beside it."""
    ranked = sorted(all_measured, key=lambda each: order.index(each.module))
    path = DOCS / "performance.md"
    text = path.read_text()
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    path.write_text(f"{before}{_BEGIN}\n{_markdown(ranked)}\n{_END}{after}")
    figures = [figure for each in ranked for figure in each.figures]
    (DOCS / "performance.svg").write_text(_picture(figures))


def _read(stored: dict[str, Any]) -> Measured:
    return Measured(**{**stored, "figures": [Figure(**each) for each in stored["figures"]]})


def _middle(values: Sequence[float]) -> str:
    middle = sorted(values)[len(values) // 2]
    return f"{middle:,.0f}" if middle >= 100 else f"{middle:.3g}"


def _markdown(measured: Sequence[Measured]) -> str:
    lines = [
        "| figure | against | measured | to reach | reached | rounds |",
        "|---|---|---|---|---|---|",
    ]
    for each in measured:
        for figure in each.figures:
            name, *cells = row(figure)
            note = f" ({figure.note})" if figure.note else ""
            lines.append(f"| {name}{note} | {' | '.join(cells)} | {len(figure.ours)} |")
    machines = sorted({each.machine for each in measured})
    loads = [each.load for each in measured]
    days = sorted({each.day for each in measured})
    lines += [
        "",
        "Medians of the ratios; in brackets the medians of both sides.",
        f"Measured {', '.join(days)} on {' and on '.join(machines)};",
        f"load when the modules began: {min(loads):.1f} to {max(loads):.1f}.",
        "",
        "![Each figure as a share of what is to be reached](performance.svg)",
    ]
    return "\n".join(lines)


def _picture(figures: Sequence[Figure]) -> str:
    """Bars of value ÷ limit, logarithmic; what ends left of the line is reached."""
    shown = [figure for figure in figures if figure.margin is not None]
    height = _ROW * len(shown) + 40
    line = _LEFT + _place(1.0)
    size = f'width="{_LEFT + _WIDE + 70}" height="{height}"'
    font = 'font-family="sans-serif" font-size="11"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{line}" y="14" text-anchor="middle">to reach</text>',
        f'<line x1="{line}" x2="{line}" y1="20" y2="{height - 8}" stroke="#444"/>',
    ]
    for number, figure in enumerate(shown):
        top, share = 24 + number * _ROW, figure.margin or _LEAST
        color = "#2a7f62" if figure.reached else "#c0504d"
        wide = max(2.0, _place(share))
        name = figure.name if len(figure.name) <= 74 else figure.name[:73] + "…"
        parts += [
            f'<text x="{_LEFT - 8}" y="{top + 11}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LEFT}" y="{top}" width="{wide:.0f}" height="13" fill="{color}"/>',
            f'<text x="{_LEFT + _place(share) + 6:.0f}" y="{top + 11}">{share:.2f}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _place(share: float) -> float:
    """Pixels from the left for a share of the limit."""
    bounded = min(max(share, _LEAST), _MOST)
    return _WIDE * math.log(bounded / _LEAST) / math.log(_MOST / _LEAST)
