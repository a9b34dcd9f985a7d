"""Output of several programs in one terminal: each line with its program's name and colour."""

from __future__ import annotations

import contextlib
import fcntl
import threading
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text

_WIDTH = 9
_COLOURS = ("cyan", "magenta", "green", "blue", "yellow")


class PrefixedLog:
    """Prints lines with prefixes and keeps them in a file.

    Args:
        console: Where to print; None keeps them in the file alone.
        path: The file, begun anew unless another process writes it.
    """

    def __init__(self, console: Console | None, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._console = console
        self._file: TextIO = path.open("a", encoding="utf-8")
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.truncate(0)
        self._colours: dict[str, str] = {"lowtide": "bold"}
        self._lock = threading.Lock()

    def __call__(self, name: str, line: str) -> None:
        """Takes one line of the program `name`; safe from any thread."""
        with self._lock:
            if not self._file.closed:
                self._file.write(f"{name:<{_WIDTH}} | {line}\n")
                self._file.flush()
            if self._console is not None:
                self._console.print(self._styled(name, line), soft_wrap=True)

    def close(self) -> None:
        """Ends the file; later lines are only printed."""
        with self._lock:
            self._file.close()

    def tail(self, lines: int = 15) -> list[str]:
        """The last lines so far."""
        return self.path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]

    def _styled(self, name: str, line: str) -> Text:
        known = self._colours
        colour = known.setdefault(name, _COLOURS[(len(known) - 1) % len(_COLOURS)])
        style = "red" if line.startswith(("ERROR", "CRITICAL")) else ""
        return Text.assemble((f"{name:<{_WIDTH}} | ", colour), Text.from_ansi(line, style=style))
