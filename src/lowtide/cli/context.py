"""What the commands share: the app that they look at, and the options to choose it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
import typer
from celery import Celery
from rich.console import Console

from lowtide import settings
from lowtide.durations import parse_duration
from lowtide.errors import LowtideError
from lowtide.runtime import Runtime, of

_APP = "APP"
AppOption = Annotated[
    str | None,
    typer.Option(
        "--app",
        "-A",
        envvar=_APP,
        help="Your Celery app, as `celery -A` takes it. Without it: the addresses in the settings.",
    ),
]
# States, which are keys of totals, are strings of a type of their own.
_JSON = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def celery_app(name: str | None) -> Celery:
    """The app of that name, or one that has nothing but the settings' addresses.

    Raises:
        LowtideError: It cannot be imported.
    """
    if name is None:
        known = settings.load()
        redis = known.redis_url or "redis://localhost:6379/0"
        app = Celery(
            "lowtide",
            broker=known.broker_url or redis,
            backend=known.result_backend or redis,
            set_as_current=False,
        )
        # A plain app stands for a worker's app, whose expiry it cannot know.
        app.conf.update(result_expires=0)
        return app
    from celery.app.utils import find_app

    try:
        found: Celery = find_app(name)
        found.loader.import_default_modules()  # the tasks too, as a worker does
        found.finalize()
    except LowtideError:
        raise
    except Exception as error:
        # Other programs take that name for something else.
        hint = " APP in the environment names it: unset APP, or name your app with -A."
        raise LowtideError(
            f"The Celery app {name!r} cannot be imported: {type(error).__name__}: {error}."
            f"{hint if os.environ.get(_APP) == name else ''}"
        ) from error
    return found


def given(name: str | None) -> Mapping[str, Any]:
    """The settings that the app of that name has in `app.conf.lowtide`; none without an app."""
    return {} if name is None else celery_app(name).conf.get("lowtide") or {}


def runtime(name: str | None) -> Runtime:
    """Lowtide's parts for that app."""
    return of(celery_app(name))


def console() -> Console:
    """Where tables go."""
    return Console(highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(orjson.dumps(value, option=_JSON, default=str).decode())


def seconds(value: str) -> float:
    """A duration given as an option; a bad one is a usage error."""
    try:
        return parse_duration(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
