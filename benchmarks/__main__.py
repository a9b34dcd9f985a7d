"""`make bench`: measures the figures, prints them, and writes them to `docs/performance.md`."""

from __future__ import annotations

import argparse
import datetime as dt

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import machine, report
from benchmarks.alone import fresh
from benchmarks.modules import MODULES, measure
from benchmarks.options import Options


def main() -> None:
    """Runs the modules that are named, or all."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="module", help=f"of: {', '.join(MODULES)}")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, one round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of a figure (5)")
    parser.add_argument("--long-rounds", type=int, default=5, help="rounds that take minutes (5)")
    parser.add_argument("--print", action="store_true", help="print only, write nothing")
    given = parser.parse_args()
    unknown = set(given.modules) - set(MODULES)
    if unknown:
        parser.error(f"there is no module {', '.join(sorted(unknown))}; {', '.join(MODULES)}")
    rounds = (1, 1) if given.quick else (given.rounds, given.long_rounds)
    options = Options(quick=given.quick, rounds=rounds[0], long_rounds=rounds[1])
    console = Console(highlight=False, width=160)
    console.print(machine.described())
    for name in given.modules or MODULES:
        busy = machine.load()
        figures = fresh(measure, name, options)
        day = dt.datetime.now(dt.UTC).date().isoformat()
        measured = report.Measured(name, figures, machine.described(), busy, day)
        show(console, measured)
        if not (given.quick or given.print):
            report.write(report.remember(measured), MODULES)


def show(console: Console, measured: report.Measured) -> None:
    """Prints the figures of one module."""
    table = Table("figure", "against", "measured", "to reach", "reached", box=box.SIMPLE)
    for figure in measured.figures:
        table.add_row(*report.row(figure))
    console.print(table)


if __name__ == "__main__":
    main()
