"""The command ``lowtide simulate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lowtide.simulator.server import serve
from lowtide.simulator.settings import SimulatorSettings, from_toml
from lowtide.simulator.turnaround import parse


def simulate(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    state: Annotated[
        Path | None, typer.Option(help="Directory that keeps everything; none: temporary.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with any setting.")] = None,
    delay: Annotated[
        str | None,
        typer.Option(help="Turnaround: 30s, uniform:10s,2h, lognormal:30m,0.8, hours:0-7=1m;..."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Pattern of models that exist; '*' for any.")
    ] = None,
) -> None:
    """Serve a Batch API with the OpenAI surface."""
    try:
        settings = from_toml(config) if config else SimulatorSettings()
        if state is not None:
            settings = replace(settings, state=state)
        if delay is not None:
            settings = replace(settings, working=parse(delay))
        if seed is not None:
            settings = replace(settings, seed=seed)
        if model:
            settings = replace(settings, models=tuple(model))
    except (OSError, ValueError) as error:
        typer.echo(f"lowtide simulate: {error}", err=True)
        raise typer.Exit(2) from error
    serve(settings, host, port, lambda url: typer.echo(f"READY lowtide-simulator base_url={url}"))
