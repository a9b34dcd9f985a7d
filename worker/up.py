"""`make up`: the whole stack on this machine, kept running until Ctrl-C."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from lowtide import settings
from lowtide.durations import parse_duration
from lowtide.errors import LowtideError
from worker.logs import PrefixedLog
from worker.stack import Plan, Running, outer_environment, stack
from worker.supervisor import Stopped, Supervisor

_FOREVER = float("inf")


def main(argv: list[str] | None = None) -> int:
    """Runs the stack.

    Returns:
        0 after a clean stop, 1 when something could not be kept running.
    """
    options = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        plan = _plan(options)
        log = PrefixedLog(console, plan.home / "up.log")
        return _run(plan, log, console)
    except LowtideError as error:
        Console(stderr=True, highlight=False).print(f"[bold red]lowtide:[/] {error}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("make up", description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="worker processes (2)")
    parser.add_argument(
        "--delay",
        type=parse_duration,
        default=10.0,
        help="how long the simulator takes for a batch (10s)",
    )
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    known = settings.load()
    return Plan(
        home=known.home,
        env=outer_environment(),
        workers=options.workers,
        turnaround=options.delay,
        redis_url=known.redis_url,
    )


def _run(plan: Plan, log: PrefixedLog, console: Console) -> int:
    say = partial(log, "lowtide")
    try:
        with Supervisor(log, say) as supervisor, stack(plan, supervisor, say) as running:
            console.print(_banner(plan, running))
            try:
                supervisor.wait(_FOREVER)
            finally:
                say("stopping; Ctrl-C again kills what still runs")
    except Stopped:
        pass
    finally:
        log.close()
    console.print("[bold]lowtide   |[/] stopped; nothing is left running")
    return 0


def _banner(plan: Plan, running: Running) -> Panel:
    lines = Table.grid(padding=(0, 2))
    provider = f"{running.provider}{'  (simulator)' if plan.simulated else ''}"
    lines.add_row("Flower", running.flower or "")
    lines.add_row("Provider", provider)
    lines.add_row("Redis", running.redis_url)
    lines.add_row("Kept in", str(plan.home.absolute()))
    lines.add_row("", "")
    lines.add_row("Try", f"LOWTIDE_REDIS_URL={running.redis_url} .venv/bin/python")
    lines.add_row("", ">>> from worker.app import app")
    lines.add_row("", ">>> from tasks.summarize import summarize")
    lines.add_row("", '>>> summarize.delay("A long text …").get()')
    return Panel(lines, title="lowtide is up", subtitle="Ctrl-C stops it", expand=False)


if __name__ == "__main__":
    sys.exit(main())
