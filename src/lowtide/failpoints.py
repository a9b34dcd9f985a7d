"""Named places between two side effects, at which a test lets the process die.

`LOWTIDE_FAILPOINTS` names a folder. A file in it that is called as a place arms that place: the
first process that gets there takes the file and is killed by SIGKILL, as a machine that fails
would end it. With the variable unset, which is always so but in tests, a place costs one check.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

VARIABLE = "LOWTIDE_FAILPOINTS"
FIRED = ".fired"
WORKER = "worker"
"""Content of an arming file that kills the whole worker, not only the process that got there."""

_folder = os.environ.get(VARIABLE)

PLACES = (
    "accept.taken",
    "accept.appended",
    "accept.sealed",
    "tick.claimed",
    "seal.sealed",
    "record.recorded",
    "record.dropped",
    "submit.uploaded",
    "submit.noted_file",
    "submit.intended",
    "submit.created",
    "submit.noted",
    "adopt.deleted",
    "next.armed",
    "next.sent",
    "poll.read",
    "poll.ended",
    "fetch.downloaded",
    "fetch.sliced",
    "fetch.requeued",
    "fetch.settled",
    "fetch.moved",
    "deliver.claimed",
    "deliver.stored",
    "deliver.resumed",
    "deliver.continued",
    "deliver.settled",
    "tell.written",
    "tell.sent",
    "tell.noted",
    "deliver.forgotten",
    "close.deleted",
    "close.closed",
)
"""Every place, in the order in which a request comes by.

One that shares a line which is on its way comes by "share.joined" in place of its buffer.
"""


def reach(place: str) -> None:
    """Dies here if `place` is armed; once, so that who comes after goes on."""
    if _folder is not None:
        _die(Path(_folder), place)


def _die(folder: Path, place: str) -> None:
    armed = folder / place
    with contextlib.suppress(FileNotFoundError):
        whole = armed.read_text("utf-8").strip() == WORKER
        armed.rename(folder / (place + FIRED))  # one process wins
        if whole:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
