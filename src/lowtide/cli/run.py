"""`lowtide run`."""

from __future__ import annotations

import difflib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

import orjson
import typer
from celery import Celery
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from lowtide.cli.context import AppOption, JsonOption, celery_app, console, print_json
from lowtide.cli.tables import clock
from lowtide.errors import LowtideError
from lowtide.runtime import of
from lowtide.shown import dollars
from lowtide.tables import Plan, Progress, Run, preview, read_rows

_INTERRUPTED = 130
_LINE_SECONDS = 10.0
_ASK_SECONDS = 1.5
_SHOWN = 3
_LONGEST_ERROR = 400


def run(
    task: Annotated[str, typer.Argument(help="A batch task, such as summarize or myapp.tasks.x.")],
    source: Annotated[Path, typer.Argument(help="A CSV, XLSX or JSONL file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the table with answers.")],
    column: Annotated[str | None, typer.Option(help="The column that the task gets.")] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Or a text with {column} where the row's values go.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="An argument for every row, as name=JSON value.")
    ] = None,
    app: AppOption = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start without asking.")] = False,
    json: JsonOption = False,
) -> None:
    """Send each row of a table through a batch task; write the table with an answer column.

    Ctrl-C stops it; the same command goes on with it, and pays for nothing twice. The exit code
    is 1 when a row has an error.
    """
    name = task if "." in task else f"tasks.{task}"
    plan = Plan(task=name, column=column, prompt=prompt, options=_options(option or []))
    celery = celery_app(app)
    runs = of(celery).settings.home / "runs"
    begun = Run.of_command(runs, source, plan, out)
    # Standard output is for the JSON alone.
    screen = Console(stderr=True, highlight=False) if json else console()
    sent = begun.progress().sent
    if sent < begun.rows:
        _refuse_unknown(celery, name, screen)
    if sent == 0 and not yes:
        _confirm(screen, celery if app else None, begun)
    with _stop_on_signal() as stop, _shown(screen, begun.rows) as show:
        progress = begun.go(celery, show, stop)
    _forget(celery)
    if progress.finished:
        begun.write(out)
    if json:
        print_json({**asdict(progress), "finished": progress.finished, "out": str(out)})
    if not progress.finished:
        begun.stop()
        screen.print(
            f"Stopped: {progress.done:,} of {progress.rows:,} rows are back. "
            "The same command goes on with it.",
            soft_wrap=True,
        )
        raise typer.Exit(_INTERRUPTED)
    screen.print(
        f"{progress.answered:,} answers and {progress.failed:,} errors are in {out}", soft_wrap=True
    )
    common = begun.common_error()
    if common is not None:
        error, count = common
        verb = "has" if progress.failed == 1 else "have"
        times = "1 time" if count == 1 else f"{count:,} times"
        raise LowtideError(
            f"{progress.failed:,} of {progress.rows:,} rows {verb} an error, see the column "
            f"{plan.error} of {out}; most often, {times}: {shorten(error, _LONGEST_ERROR)}"
        )


def _forget(app: Celery) -> None:
    """Celery listens for every result of a group, and would say goodbye to each at the end of
    the process, when it is too late for that; nobody waits for these any more.
    """
    consumer = getattr(app.backend, "result_consumer", None)
    getattr(consumer, "subscribed_to", set()).clear()


def _options(given: list[str]) -> dict[str, Any]:
    found = {}
    for each in given:
        name, sign, value = each.partition("=")
        if not sign:
            raise LowtideError(f"--option {each}: write it as name=value.")
        try:
            found[name] = orjson.loads(value)
        except orjson.JSONDecodeError:
            found[name] = value
    return found


def _refuse_unknown(app: Celery, task: str, screen: Console) -> None:
    """Passes if a worker knows the task, or none can be asked: a worker drops the messages of a
    task that it does not know, and their rows would never come back.

    Raises:
        LowtideError: Workers answer, and none of them knows it.
    """
    with app.connection_for_write() as connection:
        if "fanout" not in connection.transport.implements.exchange_type:
            return  # workers cannot be asked over such a broker
    answers = app.control.inspect(timeout=_ASK_SECONDS).registered() or {}
    known = {name for names in answers.values() for name in names}
    if not answers:
        screen.print("No worker answers: what is sent waits in the broker for one.")
    elif task not in known:
        near = difflib.get_close_matches(task, sorted(known), n=1)
        hint = f"; did you mean {near[0]}?" if near else "; `celery inspect registered` lists them."
        raise LowtideError(f"No worker that runs knows the task {task}{hint} Nothing was sent.")


def _confirm(screen: Console, app: Celery | None, begun: Run) -> None:
    """Shows what will be asked, and what it costs where the task's code is at hand; waits for a
    yes.

    Raises:
        LowtideError: There is nobody to ask.
    """
    screen.print(f"{begun.rows:,} rows of {begun.source.name} through {begun.plan.task}")
    if app is None:
        texts = filter(None, map(begun.plan.text, read_rows(begun.source)))
        _print_texts(screen, islice(texts, _SHOWN))
        screen.print("The price is known where the task's code is: -A your_app shows it.")
    else:
        expected = preview(app, begun.source, begun.plan)
        _print_texts(screen, (row.problem or row.text for row in expected.shown))
        price = "an unknown price" if expected.cost is None else f"about {dollars(expected.cost)}"
        screen.print(f"{expected.input_tokens:,} tokens in by {expected.model}: {price}")
    if not sys.stdin.isatty():
        raise LowtideError(
            "This spends money, and there is no terminal to ask at: say so with --yes."
        )
    if not typer.confirm("Start?", default=True):
        raise typer.Exit(_INTERRUPTED)


def _print_texts(screen: Console, texts: Iterable[str]) -> None:
    for text in texts:
        line = " ".join(text.split())
        screen.print(f"  {line}", style="dim", markup=False, overflow="ellipsis", no_wrap=True)


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the next one interrupts."""
    stop = threading.Event()

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        stop.set()

    before = {name: signal.signal(name, ask) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@contextmanager
def _shown(screen: Console, rows: int) -> Iterator[Callable[[Progress], None]]:
    """Shows progress: a bar on a terminal, otherwise a line now and then."""
    if not screen.is_terminal:
        yield _lines(screen)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(
        *columns, TimeElapsedColumn(), TextColumn("{task.fields[end]}"), console=screen
    ) as bars:
        sent = bars.add_task("sent", total=rows, end="")
        back = bars.add_task("back", total=rows, end="")

        def show(progress: Progress) -> None:
            end = clock(progress.expected_end)
            bars.update(sent, completed=progress.sent)
            bars.update(back, completed=progress.done, end=f"end expected {end}" if end else "")

        yield show


def _lines(screen: Console) -> Callable[[Progress], None]:
    last: tuple[int, int] | None = None
    told = 0.0

    def show(progress: Progress) -> None:
        nonlocal last, told
        seen, now = (progress.sent, progress.done), time.monotonic()
        if seen != last and (now - told > _LINE_SECONDS or progress.finished):
            screen.print(f"{progress.sent:,} sent, {progress.done:,} of {progress.rows:,} back")
            last, told = seen, now

    return show
