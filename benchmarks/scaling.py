"""More workers: what a call costs with 1, 2 and 4 of them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmarks import accepting, whole
from benchmarks.alone import fresh
from benchmarks.figure import Figure
from benchmarks.options import Options
from benchmarks.stack import stack
from benchmarks.texts import texts

_SIZE = 1_000


def run(options: Options) -> Iterator[Figure]:
    """CPU of all workers for a call: what does not grow with their number scales with the cores."""
    some = texts(options.scaled(5_000), _SIZE)
    accept = {count: fresh(_accept, count, some, options) for count in (1, 2, 4)}
    end = {count: fresh(_whole, count, some, options) for count in (1, 2, 4)}
    for what, took in (("accept", accept), ("from call to result, by `delay_many`", end)):
        for count in (2, 4):
            yield Figure(
                f"{what}: work for each core with {count} workers",
                "with 1 worker",
                0.9,
                took[1],
                took[count],
                unit="CPU s",
                more=True,
                note="CPU of one worker ÷ CPU of all, for the same calls",
            )


def _accept(count: int, some: list[str], options: Options) -> list[float]:
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
            begin = lambda: app.control.add_consumer(queue)  # noqa: E731
            return accepting.accepted(running, len(calls), begin)

        backlog(some[:200])
        return [backlog(some) for _ in range(options.long_rounds)]


def _whole(count: int, some: list[str], options: Options) -> list[float]:
    os.environ["BENCH_WAIT"] = "1s"
    try:
        with stack() as running:
            for number in range(count):
                running.worker(f"batch{number}", "benchmarks.batch_app:app")
            many = whole.ways(running)[1]["delay_many"]
            many(some[:200])
            return [many(some).workers for _ in range(options.long_rounds)]
    finally:
        del os.environ["BENCH_WAIT"]
