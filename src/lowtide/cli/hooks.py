"""`lowtide webhooks`: the provider tells when a batch has ended, in place of being asked."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from lowtide import webhooks as library
from lowtide.cli.context import AppOption, JsonOption, print_json, runtime
from lowtide.errors import SettingsError

webhooks = typer.Typer(
    name="webhooks",
    help="Let the provider tell when a batch has ended.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@webhooks.callback()
def _group() -> None:
    """Keeps `register` a command of its own."""


@webhooks.command()
def register(
    url: Annotated[str, typer.Argument(help="Public HTTPS URL of /webhooks/openai on the page.")],
    account: Annotated[str, typer.Option(help="The account whose key is used.")] = "default",
    app: AppOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Make the provider send its batch events to URL; prints the secret, told only once."""
    if "://" not in url:
        raise SettingsError(
            f"{url} is no URL; write https://your.host/webhooks/openai, as the provider reaches it."
        )
    made = library.register(runtime(app), url, account)
    if json:
        print_json(asdict(made))
        return
    typer.echo(f"The provider sends its batch events to {made.url} (endpoint {made.id}).", err=True)
    if account == "default":
        typer.echo(f"OPENAI_WEBHOOK_SECRET={made.secret}")
        place = "Put this line into the page's environment or its .env"
    else:
        typer.echo(made.secret)
        place = f'Set it as "webhook_secret" of {account} in LOWTIDE_ACCOUNTS of the page'
    typer.echo(f"{place} and restart the page; the secret is not shown again.", err=True)
