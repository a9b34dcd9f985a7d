"""The tree of commands; each is imported when it is used, so that `lowtide` starts fast."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lowtide.errors import LowtideError

COMMANDS = {
    "doctor": "lowtide.cli.doctor:doctor",
    "status": "lowtide.cli.status:status",
    "lanes": "lowtide.cli.lanes:lanes",
    "batches": "lowtide.cli.batches:batches",
    "batch": "lowtide.cli.batches:batch",
    "task": "lowtide.cli.task:task",
    "costs": "lowtide.cli.costs:costs",
    "run": "lowtide.cli.run:run",
    "flush": "lowtide.cli.flush:flush",
    "pause": "lowtide.cli.act:pause",
    "resume": "lowtide.cli.act:resume",
    "cancel": "lowtide.cli.act:cancel",
    "retry": "lowtide.cli.act:retry",
    "replay": "lowtide.cli.replay:replay",
    "purge": "lowtide.cli.purge:purge",
    "outbox": "lowtide.cli.outbox:outbox",
    "worker": "lowtide.cli.worker:worker",
    "health": "lowtide.cli.health:health",
    "settings": "lowtide.cli.settings:settings",
    "migrate": "lowtide.cli.migrate:migrate",
    "simulate": "lowtide.simulator.cli:simulate",
    "web": "lowtide.cli.checkout:web",
    "webhooks": "lowtide.cli.hooks:webhooks",
    "demo": "lowtide.cli.checkout:demo",
}
"""Where each command's function is, as "module:name"."""
_EXTRAS = {"simulate": "simulator"}


class _Commands(TyperGroup):
    """Commands by name, in the order of `COMMANDS`."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the framework's signature
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        if cmd_name not in self.commands:
            found = _load(cmd_name, place)
            if not isinstance(found, typer.Typer):
                found, function = typer.Typer(add_completion=False, **_STYLE), found
                found.command(cmd_name, **_options(cmd_name))(function)
            self.commands[cmd_name] = typer.main.get_command(found)
        return self.commands[cmd_name]


_STYLE: dict[str, Any] = {"rich_markup_mode": "rich", "pretty_exceptions_enable": False}
app = typer.Typer(cls=_Commands, no_args_is_help=True, **_STYLE)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - the framework's signature
    if wanted:
        typer.echo(version("lowtide"))
        raise typer.Exit


@app.callback()
def root(
    *,
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Celery tasks at Batch-API price.

    Exit codes: 0 done, 1 something is wrong, 2 command line or setting unusable, 130 interrupted.
    """


def _options(name: str) -> dict[str, Any]:
    if name != "worker":
        return {}
    # What follows is for `celery worker`, its --help included.
    return {
        "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
        "add_help_option": True,
    }


def _load(name: str, place: str) -> Any:
    module, _, function = place.partition(":")
    try:
        return getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        if name not in _EXTRAS:
            raise
        return _missing(name, error.name or "a package")


def _missing(name: str, package: str) -> Any:
    """A command whose packages are not installed: says which, when it is used."""

    def command() -> None:
        raise LowtideError(
            f"`lowtide {name}` needs {package}: pip install 'lowtide[{_EXTRAS[name]}]'."
        )

    command.__doc__ = f"(needs lowtide[{_EXTRAS[name]}])"
    return command
