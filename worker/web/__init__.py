"""The page of a deployment, an ASGI app: `uvicorn worker.web:app`, or `python -m worker.web`."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """Makes `app` when it is first asked for: importing the package reads no settings."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from worker.web.app import make_app

    made = globals()["app"] = make_app()
    return made
