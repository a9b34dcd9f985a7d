"""Folders for batch files on this replica's disk."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from lowtide.runtime import Runtime

_CLAIM = "claim"


@contextmanager
def spool_folder(rt: Runtime) -> Iterator[Path]:
    """A folder of this step's own, gone at the end of the block.

    A process that is killed leaves its folder; the next step on this disk removes it.
    """
    spool = rt.settings.home / "spool"
    spool.mkdir(parents=True, exist_ok=True)
    # One at a time, so that nobody finds a folder that is not claimed yet.
    alone = _locked(rt.settings.home / "spool.lock")
    with alone or nullcontext():
        if alone is not None:
            _remove_abandoned(spool)
        made = tempfile.TemporaryDirectory(dir=spool)
        claim = _locked(Path(made.name) / _CLAIM, fcntl.LOCK_NB)
    with claim or nullcontext(), made as folder:
        yield Path(folder)


def _remove_abandoned(spool: Path) -> None:
    for folder in spool.iterdir():
        if folder.is_dir() and (claim := _locked(folder / _CLAIM, fcntl.LOCK_NB)) is not None:
            with claim:
                shutil.rmtree(folder, ignore_errors=True)


def _locked(path: Path, how: int = 0) -> IO[bytes] | None:
    """A file that is this process's alone while it is open, and lives.

    Returns:
        None where another process, or another user, has it, and on a disk that knows no locks.
    """
    try:
        file = path.open("ab")
    except (FileNotFoundError, PermissionError):
        return None  # its folder is gone meanwhile, or another's
    try:
        fcntl.flock(file, fcntl.LOCK_EX | how)
    except OSError:
        file.close()
        return None
    return file
