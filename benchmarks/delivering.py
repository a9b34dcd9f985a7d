"""Deliver: a result with all of Celery's semantics, against a plain task that does nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from celery import Celery
from celery.app import trace

from benchmarks import cpu, steps
from benchmarks.figure import Figure, alternate
from benchmarks.options import Options
from benchmarks.stack import Stack, stack, until
from benchmarks.texts import texts
from lowtide import heap, runtime, scripts
from lowtide.ledger import Outcome, RequestState

_SIZE = 1_000
_TASK = "tasks.summarize"
_STORED = b'{"status": "SUCCESS", "result": "%b", "traceback": null, "children": []}' % (b"x" * 80)


def run(options: Options) -> Iterator[Figure]:
    """Results, results with a link, and members of a chord."""
    os.environ["BENCH_WAIT"] = "10h"
    with stack() as running, (running.folder / "delivering.log").open("w") as log:
        running.worker("plain0", "benchmarks.app:plain")
        from benchmarks.batch_app import app

        app.finalize()
        app.loader.import_default_modules()
        heap.keep()  # as a worker does, which also writes a line for each task that has ended
        app.log.setup_logging_subsystem("INFO", log)
        some = texts(options.scaled(5_000), _SIZE)
        each = 1e6 / len(some)
        cases = (
            ("deliver, for each result", "plain no-op task", 0.05, alone, nothings),
            ("of that, ledger, Redis and log line alone", "plain no-op task", None, bare, nothings),
            ("deliver with a link", "plain task with a link", 1.0, linked, plain_links),
            ("deliver a member of a chord", "member of a plain chord", 1.0, members, plain_chord),
        )
        for name, baseline, limit, ours, plain in cases:
            measured = alternate(
                options.rounds, partial(plain, running, some), partial(ours, app, some)
            )
            took = ([each * seconds for seconds in side] for side in measured)
            yield Figure(f"{name}: CPU", baseline, limit, *took)
    del os.environ["BENCH_WAIT"]


def delivered(app: Celery, incoming: Sequence[Any]) -> float:
    """CPU of this process for delivering answers to `incoming`."""
    took = steps.run(app, incoming).deliver
    app.control.purge()
    return took


def bare(app: Celery, some: Sequence[str]) -> float:
    """CPU of what no result can do without, by the libraries that do it: its claim, its way into
    Redis, its line in the log, and its outcome. No task is looked at.
    """
    steps.accepted(app, steps.messages(_TASK, some))
    batch = steps.sealed(app)
    submitted, ended, _ = steps.through(app, batch)
    submitted()
    ended()
    rt = runtime.of(app)
    ids, size = sorted(rt.ledger.ids(batch)), rt.settings.slice_requests
    slices = [ids[at : at + size] for at in range(0, len(ids), size)]
    took = cpu.own(lambda: [_bare_slice(app, batch, names) for names in slices])
    app.control.purge()
    return took


def _bare_slice(app: Celery, batch: str, names: Sequence[str]) -> None:
    ledger, owner = runtime.of(app).ledger, os.urandom(8).hex()
    ledger.claim(batch, names, owner, 60.0)
    keys = [f"celery-task-meta-{name}" for name in names]
    results = scripts.Call("store_results", keys, [86_400, _STORED] * len(keys))
    scripts.run(app.backend.client, [results])
    told = {"return_value": "x" * 80, "runtime": 0.5, "args": "()", "kwargs": "{}", "name": _TASK}
    for name in names:
        trace.info(trace.LOG_SUCCESS, {"id": name, **told})
    state, counts = RequestState.DELIVERED, (900, 0, 20, 0)
    ended = [Outcome(name, state, 200, None, None, "req", *counts, 0.1, 0.2) for name in names]
    ledger.settle(owner, ended)


def alone(app: Celery, some: Sequence[str]) -> float:
    """CPU for calls by themselves."""
    return delivered(app, steps.messages(_TASK, some))


def linked(app: Celery, some: Sequence[str]) -> float:
    """CPU for calls with a link each."""
    links = {"callbacks": [dict(app.tasks["bench.batch_same"].s())]}
    return delivered(app, steps.messages(_TASK, some, links))


def members(app: Celery, some: Sequence[str]) -> float:
    """CPU for calls that are the header of one chord."""
    group = f"chord-{os.urandom(4).hex()}"
    body = app.tasks["bench.batch_count"].s()
    body.freeze()
    body["chord_size"] = len(some)
    app.backend.set_chord_size(group, len(some))
    return delivered(app, steps.messages(_TASK, some, {"chord": dict(body)}, group=group))


def nothings(running: Stack, some: Sequence[str]) -> float:
    """CPU of the worker for plain no-op tasks."""
    from benchmarks.app import nothing

    return _worker(running, len(some), lambda: [nothing.delay(text) for text in some])


def plain_links(running: Stack, some: Sequence[str]) -> float:
    """CPU of the worker for tasks with a link; the link's own run is not part of it."""
    from benchmarks.app import same

    link = same.s().set(queue="links")
    send = lambda: [same.apply_async((text,), link=link) for text in some]  # noqa: E731
    took = _worker(running, len(some), send)
    running.client(0).delete("links")
    return took


def plain_chord(running: Stack, some: Sequence[str]) -> float:
    """CPU of the worker for the members of a chord."""
    from celery import chord

    from benchmarks.app import count, same

    body = count.s().set(queue="links")
    took = _worker(running, len(some), lambda: chord([same.s(t) for t in some])(body))
    running.client(0).delete("links")
    return took


def _worker(running: Stack, count: int, send: Callable[[], object]) -> float:
    results = running.client(1)
    results.flushdb()
    before = cpu.spent(running.workers("plain"))
    kept = send()
    until(lambda: _ended(results) >= count, "plain tasks have ended")
    del kept
    return cpu.spent(running.workers("plain")) - before


def _ended(results: Any) -> int:
    return sum(1 for key in results.scan_iter("celery-task-meta-*", count=5000))
