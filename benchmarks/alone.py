"""Work in a process of its own, so that its CPU and its memory are its alone."""

from __future__ import annotations

import multiprocessing
import resource
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import psutil

from benchmarks.cpu import MB


def fresh(work: Callable[..., Any], *args: Any) -> Any:
    """What `work(*args)` returns in a new process: apps and clients there know no other server."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(work, *args).result()


def at_once(count: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """What `count` new processes return that do `work(*args, start)` beside each other.

    They share nothing but the machine; `start()` lets each go on when all have called it.
    """
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(count, mp_context=context) as processes:
        start = manager.Barrier(count).wait
        running = [processes.submit(work, *args, start) for _ in range(count)]
        return [each.result() for each in running]


class Took(NamedTuple):
    """What some work took: seconds of CPU, and MB more than before it began."""

    cpu: float
    memory: float


def alone(work: Callable[..., Any], *args: Any) -> Took:
    """Runs `work(*args)` in a new process; `work` prepares, and returns what is measured."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(theirs, work, args))
    process.start()
    theirs.close()
    try:
        took: Took = ours.recv()
    except EOFError:
        raise SystemExit(f"{work.__name__} failed, see above") from None
    process.join()
    return took


def _measure(pipe: Any, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    measured = work(*args)
    me, most, over = psutil.Process(), [0.0], threading.Event()
    before = me.memory_info().rss

    def watch() -> None:
        while not over.wait(0.02):
            most[0] = max(most[0], me.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = _cpu()
    measured()
    took = _cpu() - start
    over.set()
    watcher.join()
    pipe.send(Took(took, max(0.0, (max(most[0], me.memory_info().rss) - before) / MB)))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
