"""Folders for batch files on this replica's disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lowtide.runtime import Runtime


@contextmanager
def spool_folder(rt: Runtime) -> Iterator[Path]:
    """A folder of this step's own, gone at the end of the block."""
    spool = rt.settings.home / "spool"
    spool.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=spool) as folder:
        yield Path(folder)
