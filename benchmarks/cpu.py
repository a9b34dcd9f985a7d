"""CPU time and memory of processes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil

MB = 1e6


def spent(pids: list[int]) -> float:
    """Seconds of CPU that processes and their living children have used so far."""
    return sum(sum(process.cpu_times()[:2]) for process in family(pids))


def family(pids: list[int]) -> list[psutil.Process]:
    """The processes and their children."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            found += [process, *process.children(recursive=True)]
    return found


def own(work: Callable[[], object]) -> float:
    """Seconds of CPU that `work` takes in this process."""
    before = time.process_time()
    work()
    return time.process_time() - before


@dataclass(slots=True)
class Peak:
    """The most memory that each of some processes had.

    Attributes:
        of: pid → MB resident at most.
    """

    of: dict[int, float] = field(default_factory=dict)


@contextlib.contextmanager
def peak(pids: list[int], every: float = 0.1) -> Iterator[Peak]:
    """Watches the memory of processes and their children for the length of the block."""
    seen, done = Peak(), threading.Event()

    def watch() -> None:
        while True:
            for process in family(pids):
                with contextlib.suppress(psutil.Error):
                    now = process.memory_info().rss / MB
                    seen.of[process.pid] = max(seen.of.get(process.pid, 0.0), now)
            if done.wait(every):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()
