"""`lowtide doctor`."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.console import Console
from rich.markup import escape

from lowtide.cli.context import AppOption, JsonOption, console, print_json, runtime
from lowtide.doctor import Finding, Level, examine

_MARKS = {
    Level.OK: "[green]✓[/]",
    Level.WARNING: "[yellow]![/]",
    Level.FAILURE: "[red]✗[/]",
}


def doctor(app: AppOption = None, *, json: JsonOption = False) -> None:
    """Check each part and say what to do. Exit code 1 when something does not work."""
    found = []
    out = console()
    for finding in examine(runtime(app)):
        found.append(finding)
        if not json:
            _show(out, finding)
    failures = sum(finding.level is Level.FAILURE for finding in found)
    if json:
        print_json({"ok": not failures, "findings": [asdict(finding) for finding in found]})
    else:
        out.print(
            "\nAll is well." if not failures else f"\n{failures} of {len(found)} do not work."
        )
    raise typer.Exit(1 if failures else 0)


def _show(out: Console, finding: Finding) -> None:
    detail = escape(finding.detail)
    out.print(f"{_MARKS[finding.level]} [bold]{finding.part}[/]: {detail}", soft_wrap=True)
    if finding.advice:
        out.print(f"    {escape(finding.advice)}", style="yellow", soft_wrap=True)
