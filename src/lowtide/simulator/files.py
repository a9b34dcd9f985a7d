"""The content of files on disk: where it is, and lines of it by number."""

from __future__ import annotations

import os
from array import array
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

_CHUNK = 262_144


class FileShelf:
    """A directory of file contents, one file an id, with line indexes beside the inputs.

    Args:
        root: the directory; it is made when absent.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, file_id: str) -> Path:
        """Where the content of ``file_id`` is, or would be."""
        return self.root / file_id

    def index_path(self, file_id: str) -> Path:
        """Where the line index of an input file is."""
        return self.root / f"{file_id}.idx"

    def remove(self, file_id: str) -> None:
        """Delete a content and its index; nothing happens when they are gone."""
        self.path(file_id).unlink(missing_ok=True)
        self.index_path(file_id).unlink(missing_ok=True)

    def remove_strays(self) -> None:
        """Delete what a killed upload left half written."""
        for path in self.root.glob("*.part"):
            path.unlink(missing_ok=True)

    async def stream(self, file_id: str) -> AsyncIterator[bytes]:
        """The content in pieces of 256 kB."""
        with self.path(file_id).open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk


class LineReader:
    """Lines of an input file by number, read where they are (no line is kept in memory).

    Args:
        path: the file.
        offsets: byte at which each line begins, and at last the end of the file.
    """

    def __init__(self, path: Path, offsets: array[int]) -> None:
        self._offsets = offsets
        self._fd = os.open(path, os.O_RDONLY)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def line(self, number: int) -> bytes:
        """Line ``number``, from 0."""
        start, end = self._offsets[number], self._offsets[number + 1]
        return os.pread(self._fd, end - start, start)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._fd)


def lines_with_offsets(path: Path) -> Iterator[tuple[int, bytes]]:
    """Each line of a file with the byte at which it begins; a line feed alone ends a line."""
    offset = 0
    with path.open("rb", buffering=_CHUNK) as file:
        for line in file:
            yield offset, line
            offset += len(line)


def save_index(path: Path, offsets: array[int]) -> None:
    """Write a line index; it appears whole or not at all."""
    part = path.with_suffix(".part")
    part.write_bytes(offsets.tobytes())
    part.replace(path)


def load_index(path: Path) -> array[int]:
    """Read a line index."""
    offsets = array("Q")
    offsets.frombytes(path.read_bytes())
    return offsets
