"""The public API passes mypy and pyright as an app that is strict about types uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

import lowtide

ROOT = Path(__file__).parents[2]
USES = Path(__file__).with_name("uses.py")
WRONG = "from lowtide import chat\n\nchat(17, model=3)\nchat('x').nothing\n"

pytestmark = pytest.mark.slow


def mypy(path: Path) -> str:
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    done = subprocess.run([*command, str(path)], cwd=ROOT, capture_output=True, text=True)
    return done.stdout


def pyright(path: Path, folder: Path) -> list[str]:
    """What basedpyright, which is pyright with its Node in the wheel, says in pyright's mode."""
    config = folder / "pyrightconfig.json"
    settings = {
        "typeCheckingMode": "standard",
        "include": [str(path)],
        "extraPaths": [str(ROOT / "src")],
    }
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(config)]
    command += ["--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [
        f"{one['range']['start']['line'] + 1}: {one['message']}"
        for one in found
        if one["severity"] == "error"
    ]


def test_mypy_takes_it() -> None:
    assert "Success" in mypy(USES)


def test_pyright_takes_it(tmp_path: Path) -> None:
    assert pyright(USES, tmp_path) == []


def test_both_find_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)

    assert "nothing" in mypy(wrong)
    assert any("nothing" in message for message in pyright(wrong, tmp_path))


def test_the_package_says_that_it_is_typed() -> None:
    assert (resources.files(lowtide) / "py.typed").is_file()
