"""`make up`: the whole stack on this machine, kept running until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from dotenv import dotenv_values
from redis import RedisError
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from lowtide import settings
from lowtide.connect import connect
from lowtide.durations import parse_duration
from lowtide.errors import LowtideError
from lowtide.shown import without_password
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
        _check_redis(plan)
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


_SHORT_WAIT = "5s"


def _plan(options: argparse.Namespace) -> Plan:
    known = settings.load()
    env = outer_environment()
    plan = Plan(
        home=known.home,
        env=env,
        workers=options.workers,
        turnaround=options.delay,
        page=True,
        usual_ports=True,
        redis_url=known.redis_url,
    )
    if plan.simulated:  # who tries it out wants to see something before a minute is over
        env.setdefault("LOWTIDE_MAX_WAIT", _SHORT_WAIT)
    return plan


def _check_redis(plan: Plan) -> None:
    """That a Redis which is given answers, and is not this folder's own stack that runs."""
    if plan.redis_url is None:
        return
    told = plan.home / "up.env"
    shown = without_password(plan.redis_url)
    if dotenv_values(told).get("LOWTIDE_REDIS_URL") == plan.redis_url:
        raise LowtideError(
            f"The stack of {told} runs already, and this shell was told of it: use it, or start "
            "another one in a new shell."
        )
    try:
        connect(plan.redis_url, short=True).ping()
    except RedisError as error:
        raise LowtideError(
            f"Redis at {shown}, which LOWTIDE_REDIS_URL names, cannot be reached ({error}): start "
            "it, or `unset LOWTIDE_REDIS_URL` (a new shell) for a Valkey of its own."
        ) from None


def _run(plan: Plan, log: PrefixedLog, console: Console) -> int:
    say = partial(log, "lowtide")
    try:
        with (
            Supervisor(log, say) as supervisor,
            stack(plan, supervisor, say) as running,
            _environment_file(plan, running) as file,
        ):
            console.print(_banner(plan, running, file))
            try:
                supervisor.wait(_FOREVER)
            finally:
                say("stopping; Ctrl-C again kills what still runs")
    except Stopped:
        say("stopped; nothing is left running")
    finally:
        log.close()
    return 0


@contextlib.contextmanager
def _environment_file(plan: Plan, running: Running) -> Iterator[Path]:
    """A file that makes another terminal part of the deployment, for as long as it runs."""
    # When batches are cut is among them, so that what is asked there is told what is so here.
    shared = {*running.addresses, "LOWTIDE_MAX_WAIT"}
    names = [name for name in running.env if name in shared]
    lines = [f"export {name}={shlex.quote(running.env[name])}" for name in names]
    file = plan.home / "up.env"
    file.touch(mode=0o600)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def _banner(plan: Plan, running: Running, file: Path) -> Panel:
    lines = Table.grid(padding=(0, 2))
    lines.add_row("Page", running.page or "")
    lines.add_row("Flower", running.flower)
    lines.add_row("Provider", f"{running.provider}{'  (simulator)' if plan.simulated else ''}")
    lines.add_row("Redis", without_password(running.redis_url))
    lines.add_row("Kept in", str(plan.home))
    if "LOWTIDE_MAX_WAIT" in running.env:
        lines.add_row("Batches", f"are cut after {running.env['LOWTIDE_MAX_WAIT']} at the latest")
    lines.add_row("", "")
    lines.add_row("Elsewhere", f". {file}; .venv/bin/lowtide status --watch")
    lines.add_row("", f". {file}; .venv/bin/python")
    lines.add_row("", ">>> from worker.app import app")
    lines.add_row("", ">>> from tasks.summarize import summarize")
    lines.add_row("", '>>> summarize.delay("A long text ...").get()')
    return Panel(lines, title="lowtide is up", subtitle="Ctrl-C stops it", expand=False)


if __name__ == "__main__":
    sys.exit(main())
