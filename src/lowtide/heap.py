"""What a worker process has loaded is not looked through for garbage again and again.

Python's full collections look at every object there is. Of a worker that has loaded Celery, the
provider's client and the ledger that takes 0.1 s each time, a tenth of all its work, and finds
nothing. `gc.freeze` takes what is there out of their sight, as Python's documentation advises for
processes that fork. Objects that are let go are freed as ever; only rings of objects that were
there at the time and are dropped later stay.
"""

from __future__ import annotations

import gc
from typing import Any, Literal

from celery import signals

_FULL = 2
# By then all steps have been taken once, and all they need is loaded.
_TIMES = 5
_left = 0


def attach() -> None:
    """Does so in each process that a worker's pool forks."""
    signals.worker_process_init.connect(keep, dispatch_uid="lowtide.heap")


def keep(**_: Any) -> None:
    """Lets the next few full collections of this process be the last that look at what is left."""
    global _left  # noqa: PLW0603 - a process has one heap
    _left = _TIMES
    if _freeze not in gc.callbacks:
        gc.callbacks.append(_freeze)


def _freeze(phase: Literal["start", "stop"], info: dict[str, Any]) -> None:
    global _left  # noqa: PLW0603 - a process has one heap
    if _left and phase == "stop" and info["generation"] == _FULL:
        _left -= 1
        gc.freeze()
