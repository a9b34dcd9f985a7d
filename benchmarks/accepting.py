"""Accept: CPU of the worker until a call's request is in its buffer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.figure import Figure, alternate
from benchmarks.options import Options
from benchmarks.stack import Stack, stack, until
from benchmarks.texts import texts
from lowtide import keys

_SIZE = 1_000
_LANE_DATABASE = 4


def run(options: Options) -> Iterator[Figure]:
    """Calls that wait in their buffer, against no-op tasks that have ended."""
    some = texts(options.scaled(10_000), _SIZE)
    with workers(1) as running:
        plain, delay, many = ways(running)
        for way, ours, limit in (("delay", delay, 0.9), ("delay_many", many, 0.1)):
            seen, theirs = alternate(options.rounds, lambda: plain(some), lambda: ours(some))  # noqa: B023
            yield Figure(
                f"accept by `{way}`: CPU of the worker for each call",
                "plain no-op task",
                limit,
                [each / len(some) * 1e6 for each in seen],
                [each / len(some) * 1e6 for each in theirs],
            )


@contextmanager
def workers(count: int, *, plain: bool = True) -> Iterator[Stack]:
    """Batch workers whose buffers are never sealed, and as many plain ones unless told not to."""
    os.environ["BENCH_WAIT"] = "10h"
    try:
        with stack(simulator=False) as running:
            os.environ["OPENAI_API_KEY"] = "sk-unused"
            for number in range(count):
                if plain:
                    running.worker(f"plain{number}", "benchmarks.app:plain")
                running.worker(f"batch{number}", "benchmarks.batch_app:app")
            yield running
    finally:
        del os.environ["BENCH_WAIT"]


def ways(running: Stack) -> tuple[Callable[[Sequence[str]], float], ...]:
    """Seconds of worker CPU for calls sent as no-op tasks, by `delay`, by `delay_many`."""
    from benchmarks.app import nothing
    from benchmarks.batch_app import app
    from tasks.summarize import summarize

    app.finalize()
    results = running.client(1)

    def plain(some: Sequence[str]) -> float:
        results.flushdb()
        before = running.spent("plain")
        for text in some:
            nothing.delay(text)
        until(lambda: results.dbsize() >= len(some), "plain tasks have ended")
        return running.spent("plain") - before

    def delay(some: Sequence[str]) -> float:
        return accepted(running, len(some), lambda: [summarize.delay(text) for text in some])

    def many(some: Sequence[str]) -> float:
        return accepted(running, len(some), lambda: summarize.delay_many(some))

    return plain, delay, many


def accepted(running: Stack, count: int, send: Callable[[], object]) -> float:
    """Seconds of worker CPU from `send` until `count` requests are in their buffers."""
    buffers = running.client(_LANE_DATABASE)

    def waiting() -> int:
        lanes = buffers.smembers(keys.lanes("lowtide"))
        return sum(buffers.hlen(keys.lane_lines("lowtide", lane.decode())) for lane in lanes)

    buffers.flushdb()
    before = running.spent("batch")
    send()
    until(lambda: waiting() >= count, "requests are in their buffer")
    return running.spent("batch") - before
