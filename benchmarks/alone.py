"""Work in a process of its own, so that its CPU and its memory are its alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple, Self, TypeAlias

import psutil

from benchmarks.cpu import MB

Values: TypeAlias = Generator[Any, None, None]


def fresh(work: Callable[..., Any], *args: Any) -> Any:
    """What `work(*args)` returns in a new process: apps and clients there know no other server."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(work, *args).result()


class Standing:
    """Something that stands in a process of its own and is measured when it is asked to.

    Args:
        work: Makes a generator; what it yields first tells that it stands, then it measures once
            for each value.
        args: Its arguments.
    """

    def __init__(self, work: Callable[..., Values], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_stand, args=(theirs, work, args))
        self._process.start()
        theirs.close()
        self._told()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._process.join()

    def measured(self) -> Any:
        """The next value."""
        self._ours.send(None)
        return self._told()

    def _told(self) -> Any:
        try:
            return self._ours.recv()
        except EOFError:
            raise SystemExit("a benchmark's process failed, see above") from None


def _stand(pipe: Any, work: Callable[..., Values], args: tuple[Any, ...]) -> None:
    values = work(*args)
    with contextlib.suppress(EOFError), contextlib.closing(values):
        while True:
            pipe.send(next(values))
            pipe.recv()


class Took(NamedTuple):
    """What some work took: seconds of CPU, and MB more than before it began."""

    cpu: float
    memory: float


def alone(work: Callable[..., Any], *args: Any) -> Took:
    """Runs `work(*args)` in a new process; `work` prepares, and returns what is measured."""
    with Standing(_measure, work, args) as standing:
        took: Took = standing.measured()
    return took


def _measure(work: Callable[..., Any], args: tuple[Any, ...]) -> Values:
    measured = work(*args)
    yield
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
    yield Took(took, max(0.0, (max(most[0], me.memory_info().rss) - before) / MB))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
