"""Groups and chords of thousands, from the call to their result."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from benchmarks.figure import Figure, alternate
from benchmarks.options import Options
from benchmarks.stack import stack
from benchmarks.texts import texts

_SIZE = 300
_WORKERS = 2


def run(options: Options) -> Iterator[Figure]:
    """10,000 members; the client's wait is part of it."""
    count = options.scaled(10_000)
    os.environ["BENCH_WAIT"] = "1s"
    with stack() as running:
        for number in range(_WORKERS):
            running.worker(f"plain{number}", "benchmarks.app:plain")
            running.worker(f"batch{number}", "benchmarks.batch_app:app")
        from celery import chord, group

        from benchmarks.app import count as plain_count
        from benchmarks.app import same
        from benchmarks.batch_app import app
        from benchmarks.batch_app import count as batch_count
        from tasks.summarize import summarize

        app.finalize()
        some = texts(count, _SIZE)
        # As it is, Celery looks at every member with each message that comes while it waits for a
        # chord: minutes for thousands. That is the client's loss, and left out here for both.
        wait = {"timeout": 900, "follow_parents": False}
        cases: tuple[tuple[str, Callable[[], object], Callable[[], object]], ...] = (
            (
                "a group",
                lambda: group(same.s(text) for text in some)().get(timeout=900),
                lambda: summarize.delay_many(some).get(timeout=900),
            ),
            (
                "a chord",
                lambda: chord([same.s(text) for text in some])(plain_count.s()).get(**wait),
                lambda: summarize.delay_many(some, chord=batch_count.s()).get(**wait),
            ),
        )
        for name, plain, ours in cases:
            measured = alternate(
                options.long_rounds,
                lambda plain=plain: _wall(plain),  # type: ignore[misc]
                lambda ours=ours: _wall(ours),  # type: ignore[misc]
            )
            yield Figure(
                f"{name} of {count:,} by `delay_many`, wall time",
                "plain Celery's",
                0.3,
                *measured,
                unit="s",
                note="a buffer's age of 1 s included",
            )
    del os.environ["BENCH_WAIT"]


def _wall(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start
