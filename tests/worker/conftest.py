"""What is left of a deployment in a folder: every process that has the folder in its environment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plugins.stack import until


def processes(folder: Path) -> list[str]:
    """Command lines of the processes whose LOWTIDE_HOME is in `folder`, of Valkey's its folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if command and f"LOWTIDE_HOME={folder}".encode() in environment:
            found.append(f"{entry.name}: {command}")
    return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own for all that a stack keeps."""
    folder = tmp_path / "home"
    monkeypatch.setenv("LOWTIDE_HOME", str(folder))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LOWTIDE_REDIS_URL", "LOWTIDE_MAX_WAIT"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def nothing_left(home: Path) -> Callable[[], None]:
    """Waits until no process of the stack is there any more."""

    def check() -> None:
        until(lambda: not processes(home), f"all have ended: {processes(home)}", timeout=15)

    return check
