"""Sending: what `.delay()` and `.delay_many()` cost the app that calls them."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import cpu
from benchmarks.figure import Figure, alternate
from benchmarks.options import Options
from benchmarks.stack import stack
from benchmarks.texts import texts

_SIZE = 1_000


def run(options: Options) -> Iterator[Figure]:
    """CPU of the calling process, without any worker."""
    with stack(simulator=False) as running:
        from benchmarks.app import nothing
        from benchmarks.batch_app import app
        from tasks.summarize import summarize

        app.finalize()
        brokers = [running.client(0), running.client(2)]

        def plain(count: int) -> float:
            some = texts(count, _SIZE)
            took = cpu.own(lambda: [nothing.delay(text) for text in some])
            brokers[0].flushdb()
            return took / count * 1e6

        def delay(count: int) -> float:
            some = texts(count, _SIZE)
            took = cpu.own(lambda: [summarize.delay(text) for text in some])
            brokers[1].flushdb()
            return took / count * 1e6

        def many(count: int) -> float:
            some = texts(count, _SIZE)
            took = cpu.own(lambda: summarize.delay_many(some))
            brokers[1].flushdb()
            return took / count * 1e6

        count = options.scaled(3_000)
        ours, theirs = alternate(options.rounds * 2, lambda: plain(count), lambda: delay(count))
        name = "`.delay()` in the app, CPU for each call"
        yield Figure(name, "plain Celery's `.delay()`", 1.05, ours, theirs)
        calls = options.scaled(10_000)
        ours, theirs = alternate(options.rounds, lambda: plain(count), lambda: many(calls))
        name = f"`.delay_many()` of {calls:,}, CPU for each call"
        yield Figure(name, "plain Celery's `.delay()`", 0.05, ours, theirs)
