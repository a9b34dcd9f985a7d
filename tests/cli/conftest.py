"""The command line in this process: what it prints and the code it ends with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lowtide.cli import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Command = Callable[..., Ran]


@pytest.fixture
def lowtide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `lowtide` with the words given, in an empty folder and a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["lowtide", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Ran(int(ended.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def deployment(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Redis and a folder that the settings name; its URL."""
    monkeypatch.setenv("LOWTIDE_REDIS_URL", redis_url)
    monkeypatch.setenv("LOWTIDE_HOME", str(tmp_path / "home"))
    return redis_url
