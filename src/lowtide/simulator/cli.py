"""The command ``lowtide simulate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from lowtide.simulator.faults import make_rule, parse_flag
from lowtide.simulator.server import serve
from lowtide.simulator.services import SERVICES
from lowtide.simulator.settings import SimulatorSettings, from_mapping, from_toml


def simulate(
    *,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    state: Annotated[
        Path | None, typer.Option(help="Directory that keeps everything; none: a temporary one.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any setting; flags go before it.")
    ] = None,
    delay: Annotated[
        str | None,
        typer.Option(
            help="Turnaround: 30s, uniform:10s,2h, lognormal:30m,0.8, hours:0-7=1m;else=1h"
        ),
    ] = None,
    validating: Annotated[str | None, typer.Option(help="Time for validating, as --delay.")] = None,
    finalizing: Annotated[str | None, typer.Option(help="Time for finalizing, as --delay.")] = None,
    cancelling: Annotated[str | None, typer.Option(help="Time for cancelling, as --delay.")] = None,
    service: Annotated[
        str | None,
        typer.Option(help=f"Whom to play: {', '.join(SERVICES)}; 'odd' has every oddity."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Pattern of models that exist; '*' for any.")
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(help="A fault, such as 'rate_limit count=2 retry_after=1'.")
    ] = None,
    chaos: Annotated[int | None, typer.Option(help="Ready mix of faults, 0 to 3.")] = None,
    upstream: Annotated[
        str | None, typer.Option(help="Base URL of an OpenAI-compatible server that answers.")
    ] = None,
    upstream_key: Annotated[
        str | None, typer.Option(envvar="LOWTIDE_UPSTREAM_KEY", help="Its key.")
    ] = None,
    upstream_concurrency: Annotated[
        int | None, typer.Option(help="Requests to it at the same time.")
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="URL that hears of batches.")] = None,
    webhook_secret: Annotated[
        str | None, typer.Option(envvar="LOWTIDE_WEBHOOK_SECRET", help="Its secret, whsec_…")
    ] = None,
) -> None:
    """Serve a Batch API with the OpenAI surface; a page to look at is at /."""
    flags: dict[str, Any] = {
        "state": state,
        "working": delay,
        "validating": validating,
        "finalizing": finalizing,
        "cancelling": cancelling,
        "service": service,
        "seed": seed,
        "models": model or None,
        "chaos": chaos,
        "upstream": upstream,
        "upstream_key": upstream_key,
        "upstream_concurrency": upstream_concurrency,
        "webhook_url": webhook,
        "webhook_secret": webhook_secret,
    }
    try:
        settings = from_toml(config) if config else SimulatorSettings()
        given = {name: value for name, value in flags.items() if value is not None}
        settings = from_mapping(given, settings)
        settings = replace(settings, faults=(*settings.faults, *map(parse_flag, fault or ())))
        for table in settings.faults:
            make_rule(table, "")
        serve(settings, host, port, _announce)
    except (OSError, ValueError) as error:
        typer.echo(f"lowtide simulate: {error}", err=True)
        raise typer.Exit(2) from error


def _announce(base_url: str) -> None:
    typer.echo(f"READY lowtide-simulator base_url={base_url}")
