"""From the call to its result: CPU of all worker processes, and their memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import cpu
from benchmarks.figure import Figure
from benchmarks.options import Options
from benchmarks.stack import Stack, stack, until
from benchmarks.texts import texts

WORKERS = 2
_SIZE = 1_000


@dataclass(frozen=True, slots=True)
class Run:
    """One run of many calls.

    Attributes:
        workers: Seconds of CPU of all worker processes.
        app: Seconds of CPU of the app that sends the calls.
        seconds: From the first call to the last result.
        memory: MB that the largest worker process had at most.
    """

    workers: float
    app: float
    seconds: float
    memory: float

    @property
    def all(self) -> float:
        """CPU of app and workers."""
        return self.workers + self.app


def run(options: Options) -> Iterator[Figure]:
    """10,000 calls against no-op tasks; then 1,000 and 50,000."""
    with stack() as running:
        for number in range(WORKERS):
            running.worker(f"plain{number}", "benchmarks.app:plain")
            running.worker(f"batch{number}", "benchmarks.batch_app:app")
        plain, batch = ways(running)
        some = texts(options.scaled(10_000), _SIZE)
        for warm in (plain, batch["delay"], batch["delay_many"]):
            warm(some[:200])
        rounds = [
            (plain(some), batch["delay"](some), batch["delay_many"](some))
            for _ in range(options.rounds)
        ]
        yield from _compared("10,000 calls", rounds, options)
        small = [batch["delay_many"](texts(1_000, _SIZE)) for _ in range(3)]
        many = texts(options.scaled(50_000), _SIZE)
        rounds = [
            (plain(many), batch["delay"](many), batch["delay_many"](many))
            for _ in range(options.long_rounds)
        ]
        yield from _compared("50,000 calls", rounds, options)
        yield Figure(
            "memory of the largest worker process, from 1,000 to 50,000 requests",
            "",
            30.0,
            [max(r[1].memory, r[2].memory) - max(s.memory for s in small) for r in rounds],
            unit="MB more",
        )


def ways(running: Stack) -> tuple[Callable[..., Run], dict[str, Callable[..., Run]]]:
    """How calls are sent: plain no-op tasks, and batch tasks by `delay` and `delay_many`."""
    from benchmarks.app import nothing
    from benchmarks.batch_app import app
    from lowtide import runtime
    from tasks.summarize import summarize

    app.finalize()

    def plain(some: Sequence[str]) -> Run:
        def send() -> None:
            for text in some:
                nothing.delay(text)

        return measured(running, "plain", 1, len(some), send)

    def delay(some: Sequence[str]) -> Run:
        def send() -> None:
            for text in some:
                summarize.delay(text)

        return measured(running, "batch", 3, len(some), send, closed)

    def many(some: Sequence[str]) -> Run:
        return measured(running, "batch", 3, len(some), lambda: summarize.delay_many(some), closed)

    def closed() -> bool:
        known = runtime.of(app).ledger.batches()
        return all(batch.state == "DELIVERED" for batch in known)

    return plain, {"delay": delay, "delay_many": many}


def measured(
    running: Stack,
    prefix: str,
    database: int,
    count: int,
    send: Callable[[], Any],
    closed: Callable[[], bool] = lambda: True,
) -> Run:
    """Sends `count` calls and waits for all of their results."""
    results = running.client(database)
    results.flushdb()
    before, started = running.spent(prefix), time.monotonic()
    with cpu.peak(running.workers(prefix)) as memory:
        app = cpu.own(send)
        until(lambda: results.dbsize() >= count, f"{count} results")
        seconds = time.monotonic() - started
        until(closed, "every batch is closed")
    # The caller's own looks are not the app's work: only the sending is counted.
    return Run(running.spent(prefix) - before, app, seconds, max(memory.of.values()))


def _compared(
    what: str, rounds: Sequence[tuple[Run, Run, Run]], options: Options
) -> Iterator[Figure]:
    note = options.note()
    plain = [r[0] for r in rounds]
    for index, way, limit in ((1, "delay", 1.0), (2, "delay_many", None)):
        batch = [r[index] for r in rounds]
        yield Figure(
            f"{what} by `{way}`: CPU of all worker processes",
            "plain no-op tasks",
            limit,
            [each.workers for each in batch],
            [each.workers for each in plain],
            unit="s",
            note=note,
        )
        yield Figure(
            f"{what} by `{way}`: CPU of app and workers",
            "plain no-op tasks",
            0.5 if what.startswith("50") else None,
            [each.all for each in batch],
            [each.all for each in plain],
            unit="s",
            note=note,
        )
        yield Figure(
            f"{what} by `{way}`: from the first call to the last result",
            "plain no-op tasks",
            None,
            [each.seconds for each in batch],
            [each.seconds for each in plain],
            unit="s",
            note="; ".join(filter(None, ("waits for the buffer's age (5 s) included", note))),
        )
