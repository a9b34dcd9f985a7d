"""Spool folders are removed with their step, also when its process did not live to do it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lowtide.spool import spool_folder

STEP = """
import sys
from pathlib import Path
from types import SimpleNamespace
from lowtide.spool import spool_folder

with spool_folder(SimpleNamespace(settings=SimpleNamespace(home=Path(sys.argv[1])))) as folder:
    (folder / "output.jsonl").write_text("an answer")
    print(folder, flush=True)
    sys.stdin.read()
"""


def of(home: Path) -> Any:
    return SimpleNamespace(settings=SimpleNamespace(home=home))


@pytest.mark.parametrize("is_killed", [True, False])
def test_the_next_step_removes_what_killed_processes_left_and_no_more(
    tmp_path: Path, is_killed: bool
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STEP, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        folder = Path(other.stdout.readline().strip())
        assert (folder / "output.jsonl").exists()
        if is_killed:
            other.kill()
            other.wait()

        with spool_folder(of(tmp_path)) as own:
            (own / "input.jsonl").write_text("a line")

            assert folder.exists() != is_killed

            with spool_folder(of(tmp_path)) as second:
                assert (own / "input.jsonl").exists()
                assert own != second
        other.kill()
    assert folder.exists() != is_killed


def test_a_folder_is_gone_with_its_step(tmp_path: Path) -> None:
    with spool_folder(of(tmp_path)) as folder:
        (folder / "input.jsonl").write_text("a line")

    assert list((tmp_path / "spool").iterdir()) == []
