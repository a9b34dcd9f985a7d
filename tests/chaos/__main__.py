"""`python -m tests.chaos`: chaos for a set time, a table, a report; the exit code tells."""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
import tempfile
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.driver import Outcome, Plan, as_table, run

_SHOWN = 20


def main() -> int:
    """Runs and reports; 0 when the promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    for each in fields(Plan):
        parser.add_argument(f"--{each.name}", type=type(each.default), default=each.default)
    parser.add_argument("--report", type=Path, help="Markdown file to write")
    parser.add_argument("--keep", type=Path, help="folder that keeps logs and state")
    given = vars(parser.parse_args())
    report, keep = given.pop("report"), given.pop("keep")
    plan = Plan(**given)
    folder = keep or Path(tempfile.mkdtemp(prefix="lowtide-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    outcome = run(plan, folder)
    text = _report(plan, outcome)
    print("\n" + text)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(text, "utf-8")
    if outcome.kept:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
        return 0
    print(f"The promise was broken; logs and state are in {folder}", file=sys.stderr)
    return 1


def _report(plan: Plan, outcome: Outcome) -> str:
    said = "kept" if outcome.kept else "BROKEN"
    options = " ".join(f"--{each.name} {getattr(plan, each.name)}" for each in fields(plan))
    parts = [
        f"# Chaos, {plan.seconds:.0f} s on {plan.database}: the promise was {said}",
        (
            f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, "
            f"{plan.workers} workers of 2 processes, Valkey with AOF, simulator with the faults of "
            f"`--chaos {plan.level}`. Again with:\n\n```\npython -m tests.chaos {options}\n```"
        ),
        _table(("figure", ""), [(name, str(value)) for name, value in as_table(plan, outcome)]),
        "## What was broken",
        _table(("action", "times"), sorted((n, str(c)) for n, c in outcome.done.items())),
        "## What was sent",
        _table(("kind", "calls"), sorted((n, str(c)) for n, c in outcome.kinds.items())),
        "## What the workers logged",
        _table(("lines", "count"), sorted((n, str(c)) for n, c in outcome.log.items())),
    ]
    for name, what in outcome.verdict.violations.items():
        parts += [f"## Broken: {name} ({len(what)})"]
        parts += ["\n".join(f"- `{each}`" for each in what[:_SHOWN])]
    return "\n\n".join(parts) + "\n"


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [head, ("---", "---:"), *rows]
    return "\n".join(f"| {left} | {right} |" for left, right in lines)


if __name__ == "__main__":
    sys.exit(main())
