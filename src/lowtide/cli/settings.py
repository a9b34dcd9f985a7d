"""`lowtide settings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from lowtide.cli.context import AppOption, JsonOption, console, given, print_json
from lowtide.settings import PREFIX, Settings, load, sources
from lowtide.shown import setting


def settings(app: AppOption = None, *, json: JsonOption = False) -> None:
    """List every setting: its value here, where that comes from, and what it means."""
    rows = _rows(given(app))
    if json:
        print_json(rows)
        return
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("setting", style="cyan", no_wrap=True)
    for name in ("value", "from", "meaning"):
        table.add_column(name, overflow="fold")
    for row in rows:
        style = "" if row["from"] == "default" else "bold"
        table.add_row(row["name"], row["value"], row["from"], row["meaning"], style=style)
    console().print(table)


def _rows(overrides: Mapping[str, Any]) -> list[dict[str, str]]:
    known, where = load(overrides), sources(overrides)
    return [
        {
            "name": PREFIX + name.upper(),
            "value": setting(name, getattr(known, name)),
            "from": where[name],
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]
