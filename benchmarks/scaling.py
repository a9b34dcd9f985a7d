"""More workers: what a call costs with 1, 2 and 4 of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import mean

from benchmarks import accepting, whole
from benchmarks.alone import Standing, Values
from benchmarks.figure import Figure
from benchmarks.options import Options
from benchmarks.stack import stack
from benchmarks.texts import texts

_SIZE = 1_000
_MORE = (2, 4)


def run(options: Options) -> Iterator[Figure]:
    """CPU of all workers for a call: what does not grow with their number scales with the cores.

    A core does less while the others are busy, whoever keeps them so. What sharing a deployment
    costs is therefore also compared with workers that have a deployment each, at the same time.
    All deployments stand from the first round to the last and are measured in turn.
    """
    some = texts(options.scaled(5_000), _SIZE)
    for what, work in (("accept", _accept), ("from call to result, by `delay_many`", _whole)):
        one: list[float] = []
        sharing: dict[int, list[float]] = {count: [] for count in _MORE}
        apart: dict[int, list[float]] = {count: [] for count in _MORE}
        with ExitStack() as standing:
            alone = [standing.enter_context(Standing(work, 1, some)) for _ in range(max(_MORE))]
            many = {count: standing.enter_context(Standing(work, count, some)) for count in _MORE}
            for _ in range(options.long_rounds):
                one.append(alone[0].measured())
                for count in _MORE:
                    sharing[count].append(many[count].measured())
                    apart[count].append(mean(_at_once(alone[:count])))
        for count in _MORE:
            name = f"{what}: work for each core with {count} workers"
            note = "CPU of one worker ÷ CPU of all, for the same calls"
            yield _figure(name, "with 1 worker", 0.9, one, sharing[count], note)
            baseline = f"{count} workers at once that share nothing"
            note = "CPU of one of these ÷ CPU of all that share, for the same calls"
            yield _figure(name, baseline, None, apart[count], sharing[count], note)


def _figure(
    name: str, baseline: str, limit: float | None, one: list[float], all_: list[float], note: str
) -> Figure:
    return Figure(name, baseline, limit, one, all_, unit="CPU s", more=True, note=note)


def _at_once(some: list[Standing]) -> list[float]:
    with ThreadPoolExecutor(len(some)) as threads:
        return list(threads.map(Standing.measured, some))


def _accept(count: int, some: list[str]) -> Values:
    """As workers do it that have enough to do: all calls are in the queue before they begin."""
    with accepting.workers(count, plain=False) as running:
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

        while True:
            yield backlog(some)


def _whole(count: int, some: list[str]) -> Values:
    os.environ["BENCH_WAIT"] = "1s"
    with stack() as running:
        for number in range(count):
            running.worker(f"batch{number}", "benchmarks.batch_app:app")
        many = whole.ways(running)[1]["delay_many"]
        while True:
            yield many(some).workers
