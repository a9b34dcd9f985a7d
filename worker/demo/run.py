"""The demo: starts the stack, summarises real text through it, shows what came of it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.prompt import Confirm

from lowtide import settings
from lowtide.errors import LowtideError
from worker.demo import report
from worker.demo.remembered import calls_file, remembered
from worker.demo.texts import Description, descriptions
from worker.logs import PrefixedLog
from worker.stack import Plan, outer_environment, stack
from worker.supervisor import Stopped, Supervisor

_INTERRUPTED = 130
_PATIENCE = 120.0
_QUICK = {
    "LOWTIDE_MAX_REQUESTS": "40",
    "LOWTIDE_MAX_WAIT": "2s",
    "LOWTIDE_POLL_MIN": "1s",
    "LOWTIDE_POLL_MAX": "2s",
    "LOWTIDE_TICK": "200ms",
    "LOWTIDE_LANES": "{}",
}


class Declined(Exception):
    """The user does not want to spend the money."""


@dataclass(frozen=True, slots=True)
class Demo:
    """One run.

    Attributes:
        folder: What it keeps; removed after a success.
    """

    console: Console
    options: argparse.Namespace
    folder: Path
    plan: Plan
    log: PrefixedLog
    texts: Sequence[Description]

    def say(self, line: str) -> None:
        """Tells the user, and the log, what happens now."""
        self.log("lowtide", line)
        self.console.print(line, style="dim")


def main(argv: list[str] | None = None) -> int:
    """Runs the demo.

    Returns:
        0 when every text has its summary, 1 when not, 130 when it was stopped.
    """
    options = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        demo = _prepare(options, console)
    except (LowtideError, OSError) as error:
        return _failed(str(error))
    try:
        return _finish(demo, _run(demo))
    except Declined:
        return _INTERRUPTED
    except (Stopped, KeyboardInterrupt):
        _say_stopped(demo)
        return _INTERRUPTED
    except LowtideError as error:
        return _failed(str(error), demo.log)
    except Exception as error:
        demo.log("lowtide", traceback.format_exc())
        return _failed(f"{type(error).__name__}: {error}", demo.log)
    finally:
        demo.log.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("make demo", description=__doc__)
    parser.add_argument("--yes", action="store_true", help="spend real money without asking")
    parser.add_argument("--all", action="store_true", help="show every answer")
    parser.add_argument("--limit", type=_count, metavar="N", help="take the first N texts alone")
    return parser


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value} is no number of 1 or more")
    return int(value)


def _prepare(options: argparse.Namespace, console: Console) -> Demo:
    outer = outer_environment()
    live = bool(outer.get("OPENAI_API_KEY") or outer.get("LOWTIDE_ACCOUNTS"))
    # What was paid for is kept until it is delivered; a simulated run starts from nothing.
    home = settings.load().home
    _sweep(home)
    folder = home / ("demo-live" if live else f"demo-{os.getpid()}")
    folder.mkdir(parents=True, exist_ok=True)
    own = {
        **({} if live else _QUICK),
        "LOWTIDE_DATABASE_URL": f"sqlite:///{folder.absolute() / 'ledger.db'}",
        "LOWTIDE_BROKER_URL": "",
        "LOWTIDE_RESULT_BACKEND": "",
    }
    plan = Plan(home=folder, env={**outer, **own}, turnaround=4.0)
    log = PrefixedLog(None, folder / "demo.log")
    return Demo(console, options, folder, plan, log, descriptions()[: options.limit])


def _sweep(home: Path) -> None:
    """Removes what simulated runs left that failed or were killed; only the last one's log stays
    until then.
    """
    for folder in home.glob("demo-[0-9]*"):
        try:
            os.kill(int(folder.name.removeprefix("demo-")), 0)
        except (ValueError, ProcessLookupError):
            shutil.rmtree(folder, ignore_errors=True)


def _run(demo: Demo) -> int:
    size = sum(len(text.text) for text in demo.texts)
    demo.console.print(
        f"[bold]Summarising the descriptions of {len(demo.texts)} installed packages[/], "
        f"{size:,} characters of real text, through summarize.delay(text)",
        soft_wrap=True,
    )
    if not demo.plan.simulated:
        _ask(demo)
    with (
        Supervisor(demo.log, demo.say) as supervisor,
        stack(demo.plan, supervisor, demo.say) as running,
    ):
        os.environ.update(running.env)
        from worker.demo.work import work  # it reads the addresses that are known only now

        done = work(demo.console, demo.texts, calls_file(demo.folder), demo.plan, supervisor)
        demo.say("stopping everything")
    done.show(demo.console, demo.texts, every=demo.options.all, simulated=demo.plan.simulated)
    return 1 if done.failed else 0


def _ask(demo: Demo) -> None:
    """Shows what it will cost and waits for a yes; what is under way already is not asked again."""
    from lowtide import settings
    from lowtide.lane import Lane
    from tasks.summarize import summarize
    from worker.demo.estimate import estimate_all

    known = remembered(calls_file(demo.folder))
    new = [text for text in demo.texts if text.package not in known]
    if known:
        demo.console.print(
            f"{len(known)} calls of an earlier run are under way: going on with them."
        )
    if not new or demo.options.yes:
        return
    lane = Lane(summarize.account, summarize.endpoint, summarize.model)
    report.estimate(demo.console, estimate_all(new, lane, settings.load()))
    if not sys.stdin.isatty():
        raise LowtideError(
            "OPENAI_API_KEY is set, so this spends real money: say so with make demo ARGS=--yes, "
            "or unset the key to use the simulator."
        )
    if not Confirm.ask("Spend it?", console=demo.console, default=False):
        raise Declined


def _finish(demo: Demo, code: int) -> int:
    if code:
        return _failed("Some texts have no summary: the table says why.", demo.log)
    shutil.rmtree(demo.folder, ignore_errors=True)
    demo.console.print("Done; nothing is left running.")
    return 0


def _say_stopped(demo: Demo) -> None:
    if demo.plan.simulated:
        shutil.rmtree(demo.folder, ignore_errors=True)
        demo.console.print("\n[bold]Stopped.[/] Nothing is left running.")
        return
    left = (
        "What was sent goes on at the provider: `make demo` again picks up its answers."
        if _was_sent(demo)
        else "Nothing was sent, so nothing was spent: `make demo` again goes on with it."
    )
    demo.console.print(f"\n[bold]Stopped.[/] Nothing is left running here. {left}", soft_wrap=True)


def _was_sent(demo: Demo) -> bool:
    """Whether the ledger knows of a batch at the provider, or of one that may be there."""
    from lowtide.clock import SystemClock
    from lowtide.ledger import Ledger

    ledger = Ledger(demo.plan.env["LOWTIDE_DATABASE_URL"], SystemClock())
    try:
        ledger.create()  # it was stopped before a worker did
        return any(batch.submitted_at or batch.submitting_at for batch in ledger.batches())
    finally:
        ledger.close()


def _failed(reason: str, log: PrefixedLog | None = None) -> int:
    """Says on standard error why it failed and where to read on."""
    errors = Console(stderr=True, highlight=False)
    errors.print(f"[bold red]lowtide:[/] {reason}")
    if log is not None:
        for line in log.tail():
            errors.print(f"  {line}", style="dim", markup=False)
        errors.print(f"Log: {log.path}")
    return 1
