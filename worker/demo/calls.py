"""The demo's calls: made, remembered across runs, waited for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from celery import Celery
from celery.result import AsyncResult

from tasks.summarize import summarize
from worker.demo.texts import Description

Calls = dict[str, AsyncResult]
"""The pending result by package."""


def remembered(path: Path) -> dict[str, str]:
    """Task ids by package of a run that was stopped before its answers were there."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(json.loads(line) for line in lines)


def make(app: Celery, texts: Sequence[Description], path: Path, check: Callable[[], None]) -> Calls:
    """Calls `summarize` for every text that an earlier run has not called it for.

    Args:
        path: Where task ids are kept, a line each.
        check: Called between the calls; raises when they are to stop.
    """
    known = remembered(path)
    calls: Calls = {}
    with path.open("a", encoding="utf-8") as file:
        for text in texts:
            check()
            if text.package in known:
                calls[text.package] = app.AsyncResult(known[text.package])
                continue
            call = calls[text.package] = summarize.delay(text.text)
            file.write(json.dumps([text.package, call.id]) + "\n")
            file.flush()
    return calls


def pending(calls: Calls, before: Sequence[str]) -> list[str]:
    """Those of the packages `before` whose call has no result yet."""
    return [package for package in before if not calls[package].ready()]
