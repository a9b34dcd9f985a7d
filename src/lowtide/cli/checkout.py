"""`lowtide web` and `lowtide demo`: programs of lowtide's repository, started by their names.

The wheel holds the library alone, which never imports them; in a checkout they are at hand.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from typing import Annotated

import typer
from celery.utils.imports import cwd_in_path

from lowtide.errors import LowtideError


def web(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for a free one.")] = 8080,
) -> None:
    """Serve the page, `/metrics` and the webhooks; in a checkout of lowtide's repository.

    It is `python -m worker.web`. Other addresses than loopback need LOWTIDE_WEB_TOKEN.
    """
    _run("worker.web", "--host", host, "--port", str(port))


def demo(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Spend real money without asking.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Show every answer.")] = False,
    limit: Annotated[int | None, typer.Option(help="Take the first N texts alone.", min=1)] = None,
) -> None:
    """Run the main job on real text, as `make demo` does; in a checkout of lowtide's repository."""
    words = ["--yes"] * yes + ["--all"] * every
    _run("worker.demo", *words, *([] if limit is None else ["--limit", str(limit)]))


def _run(program: str, *words: str) -> None:
    """As `python -m program`, which looks into the folder that one is in.

    Raises:
        LowtideError: The program, or a package that it needs, is not there.
    """
    sys.argv = [f"python -m {program}", *words]
    with cwd_in_path():
        try:
            found = importlib.util.find_spec(f"{program}.__main__")
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise LowtideError(
                f"{program} is not in this folder, nor installed: it is part of lowtide's "
                "repository, not of its wheel. Go into a checkout and try again."
            )
        try:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        except ModuleNotFoundError as error:
            raise LowtideError(
                f"{program} needs {error.name}: run `make setup` in the checkout."
            ) from error
