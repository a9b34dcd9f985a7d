"""More workers: what a call costs with 1, 2 and 4 of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import accepting, whole
from benchmarks.alone import at_once, fresh
from benchmarks.figure import Figure
from benchmarks.options import Options
from benchmarks.stack import stack
from benchmarks.texts import texts

_SIZE = 1_000


def run(options: Options) -> Iterator[Figure]:
    """CPU of all workers for a call: what does not grow with their number scales with the cores.

    A core does less while the others are busy, whoever keeps them so. What sharing a deployment
    costs is therefore also compared with workers that have a deployment each, at the same time.
    """
    some = texts(options.scaled(5_000), _SIZE)
    for what, work in (
        ("accept", _accept),
        ("from call to result, by `delay_many`", _whole),
    ):
        took = {count: fresh(work, count, some, options) for count in (1, 2, 4)}
        for count in (2, 4):
            name = f"{what}: work for each core with {count} workers"
            note = "CPU of one worker ÷ CPU of all, for the same calls"
            yield _figure(name, "with 1 worker", 0.9, took[1], took[count], note)
            apart = zip(*at_once(count, work, 1, some, options), strict=True)
            each = [sum(round_) / count for round_ in apart]
            note = "CPU of one of these ÷ CPU of all that share, for the same calls"
            yield _figure(name, "as many at once that share nothing", None, each, took[count], note)


def _figure(
    name: str, baseline: str, limit: float | None, one: list[float], all_: list[float], note: str
) -> Figure:
    return Figure(name, baseline, limit, one, all_, unit="CPU s", more=True, note=note)


def _accept(
    count: int, some: list[str], options: Options, start: Callable[[], Any] = int
) -> list[float]:
    """As workers do it that have enough to do: all calls are in the queue before they begin."""
    with accepting.workers(count) as running:
        from benchmarks.batch_app import app
        from tasks.summarize import summarize

        app.finalize()
        queue = app.conf.task_default_queue

        def backlog(calls: list[str]) -> float:
            app.control.cancel_consumer(queue, reply=True, timeout=2)
            for text in calls:
                summarize.delay(text)

            def begin() -> None:
                start()
                app.control.add_consumer(queue)

            return accepting.accepted(running, len(calls), begin)

        backlog(some[:200])
        return [backlog(some) for _ in range(options.long_rounds)]


def _whole(
    count: int, some: list[str], options: Options, start: Callable[[], Any] = int
) -> list[float]:
    os.environ["BENCH_WAIT"] = "1s"
    try:
        with stack() as running:
            for number in range(count):
                running.worker(f"batch{number}", "benchmarks.batch_app:app")
            many = whole.ways(running)[1]["delay_many"]
            many(some[:200])
            took = []
            for _ in range(options.long_rounds):
                start()
                took.append(many(some).workers)
            return took
    finally:
        del os.environ["BENCH_WAIT"]
