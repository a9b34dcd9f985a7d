"""Importing lowtide in an app that only sends tasks."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.figure import Figure, alternate
from benchmarks.options import Options

_PLAIN = """
from celery import Celery, shared_task
app = Celery("shop", broker="redis://localhost/0")
@shared_task
def ask(text): return text
app.finalize()
app.amqp
"""
_OURS = """
from celery import Celery
from lowtide import batch_task
app = Celery("shop", broker="redis://localhost/0")
@batch_task(model="gpt-5-mini")
def ask(text): return text
app.finalize()
app.amqp
"""


def run(options: Options) -> Iterator[Figure]:
    """CPU of a new process that defines one task."""
    ours, theirs = alternate(options.rounds * 2, lambda: _cpu(_PLAIN), lambda: _cpu(_OURS))
    more = [a - b for a, b in zip(ours, theirs, strict=True)]
    yield Figure("importing lowtide and defining a batch task", "", 60.0, more, unit="ms more")


def _cpu(code: str) -> float:
    before = _children()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (_children() - before) * 1e3


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
