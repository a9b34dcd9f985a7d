"""What was asked for already: kept so that a run that was stopped can go on with it."""

from __future__ import annotations

import json
from pathlib import Path


def calls_file(folder: Path) -> Path:
    """Where a run keeps its task ids, a line each."""
    return folder / "calls.jsonl"


def remembered(path: Path) -> dict[str, str]:
    """Task ids by package of a run that was stopped before its answers were there."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(json.loads(line) for line in lines)


def remember(path: Path, package: str, task_id: str) -> None:
    """Notes one call."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps([package, task_id]) + "\n")
