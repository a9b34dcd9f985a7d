"""`lowtide worker`."""

from __future__ import annotations

import typer

from lowtide import settings
from lowtide.cli.context import AppOption, celery_app
from lowtide.errors import SettingsError


def worker(ctx: typer.Context, app: AppOption = None) -> None:
    """Start a worker of your Celery app; every other option is `celery worker`'s.

    It is `celery -A APP worker` with the settings checked first.
    """
    if app is None:
        raise SettingsError("Which Celery app? Write `lowtide worker -A your_module`.")
    found = celery_app(app)
    settings.load(found.conf.get("lowtide"))
    found.worker_main(["worker", *ctx.args])
