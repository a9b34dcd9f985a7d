"""`lowtide migrate`."""

from __future__ import annotations

import typer

from lowtide.cli.context import AppOption, given
from lowtide.clock import SystemClock
from lowtide.ledger import Ledger
from lowtide.settings import load


def migrate(app: AppOption = None) -> None:
    """Bring the ledger's database to this release. Workers do it too when they start."""
    ledger = Ledger(load(given(app)).ledger_url, SystemClock())
    try:
        ledger.create()
    finally:
        ledger.close()
    typer.echo(f"{ledger.name} is up to date.")
