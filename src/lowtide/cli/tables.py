"""Tables of the commands: one look for all of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.table import Table


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


def clock(moment: float | None) -> str:
    """A point in time in this machine's zone, "" when it has not come."""
    if moment is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def number(value: int | None) -> str:
    """A count, "" when it is not known."""
    return "" if value is None else f"{value:,}"
