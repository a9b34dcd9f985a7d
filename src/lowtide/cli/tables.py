"""Tables of the commands: one look for all of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_ENDLESS = 10_000


def table(title: str, left: Mapping[str, int | None], right: Iterable[str] = ()) -> Table:
    """An empty table.

    Args:
        title: What it is about; "" for none.
        left: Columns of text with the width at which they are cut; None = wrapped.
        right: Columns of numbers.
    """
    made = Table(
        title=title or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name, width in left.items():
        # A lane's key has no spaces, and its end is what tells it from others.
        overflow: Any = "fold" if width is None else "ellipsis"
        made.add_column(name, max_width=width, no_wrap=width is not None, overflow=overflow)
    for name in right:
        made.add_column(name, justify="right", no_wrap=True)
    return made


class Whole:
    """A table whose first column names things, such as lanes, that are never cut or broken.

    Where it is too wide for the screen, each name has a line to itself, and what belongs to it
    stands below.

    Args:
        made: The table; its cells are strings of one line.
        notes: What is to be said below it in full, a paragraph each.
    """

    def __init__(self, made: Table, notes: Iterable[str] = ()) -> None:
        self._made = made
        self._notes = list(notes)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Chooses by the width that it would take if there was no end to the right."""
        endless = options.update(max_width=_ENDLESS)
        if self._made.__rich_measure__(console, endless).maximum <= options.max_width:
            yield self._made
        else:
            yield Text(f"{self._made.title}\n", style="table.title")
            yield from self._below()
        for note in self._notes:
            yield Padding(Text(note), (0, 0, 0, 1))
        if self._notes:
            yield ""

    def _below(self) -> Iterator[RenderableType]:
        names, *others = ([*map(str, column.cells)] for column in self._made.columns)
        headings = [str(column.header) for column in self._made.columns[1:]]
        for name, *cells in zip(names, *others, strict=True):
            facts = zip(headings, cells, strict=True)
            yield Text(name, style="bold", overflow="fold")
            told = ", ".join(f"{heading}: {cell}" for heading, cell in facts if cell)
            yield Padding(Text(told), (0, 0, 0, 2))
        yield ""


def clock(moment: float | None) -> str:
    """A point in time in this machine's zone, "" when it has not come."""
    if moment is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def number(value: int | None) -> str:
    """A count, "" when it is not known."""
    return "" if value is None else f"{value:,}"
