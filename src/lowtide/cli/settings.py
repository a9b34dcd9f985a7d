"""`lowtide settings`."""

from __future__ import annotations

import os

from dotenv import dotenv_values
from rich import box
from rich.table import Table

from lowtide.cli.context import JsonOption, console, print_json
from lowtide.settings import PREFIX, Settings, load
from lowtide.shown import setting


def settings(*, json: JsonOption = False) -> None:
    """List every setting: its value here, where that comes from, and what it means."""
    rows = _rows(load())
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


def _rows(known: Settings) -> list[dict[str, str]]:
    return [
        {
            "name": PREFIX + name.upper(),
            "value": setting(name, getattr(known, name)),
            "from": _source(PREFIX + name.upper()),
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]


def _source(name: str) -> str:
    if name in os.environ:
        return "environment"
    return ".env" if name in dotenv_values(".env") else "default"
