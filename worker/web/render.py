"""Pages from templates, and how values are written in them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from lowtide.errors import LowtideError
from lowtide.lane import Lane
from lowtide.shown import dollars, duration, size
from worker.web import charts

logger = logging.getLogger(__name__)

NAVIGATION = (
    ("/", "Overview"),
    ("/lanes", "Lanes"),
    ("/batches", "Batches"),
    ("/tables", "Tables"),
    ("/costs", "Costs"),
    ("/tide", "Tide"),
    ("/settings", "Settings"),
)


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page with the frame around it."""
    from worker.web import guard

    frame = {
        "navigation": NAVIGATION,
        "path": request.url.path,
        "proof": guard.field(request),
        "guarded": bool(request.state.key),
        "said": request.query_params.get("said", "")[:300],
        "problem": "",
        "now": time.time(),
    }
    return HTMLResponse(_templates.get_template(template).render({**frame, **values}), status)


def back(request: Request, path: str, said: str = "") -> RedirectResponse:
    """Where an action leads to, with a line that says what it did."""
    del request
    from urllib.parse import quote

    joint = "&" if "?" in path else "?"
    return RedirectResponse(f"{path}{joint}said={quote(said)}" if said else path, 303)


_TITLES = {403: "Not allowed", 404: "Not found"}


def stopped(request: Request, error: Exception) -> Response:
    """There is no such page, or the action may not be taken like this."""
    status, said = 404, "Not Found"
    if isinstance(error, HTTPException):
        status, said = error.status_code, error.detail
    said = "There is no such page." if said == "Not Found" else said
    title = _TITLES.get(status, "That did not work")
    return page(request, "problem.html", status=status, title=title, problem=said)


def refused(request: Request, error: Exception) -> Response:
    """What was asked cannot be done: one line says why."""
    message = error.message if isinstance(error, LowtideError) else str(error)
    return page(request, "problem.html", status=409, title="That did not work", problem=message)


def broken(request: Request, error: Exception) -> Response:
    """A part does not answer, or the page itself is at fault."""
    from redis.exceptions import RedisError

    if isinstance(error, RedisError):
        said = "Redis does not answer; calls wait in their queue and nothing is lost."
        return page(request, "problem.html", status=503, title="Redis is away", problem=said)
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    said = "The page failed here; its log says why."
    return page(request, "problem.html", status=500, title="That went wrong", problem=said)


def _moment(at: float | None) -> str:
    """A point in time, UTC, to the second."""
    if at is None:
        return ""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _ago(at: float | None) -> str:
    """How long ago, or in how long."""
    if at is None:
        return ""
    seconds = time.time() - at
    return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _money(value: float | None) -> str:
    if value is None:
        return "unknown"
    if 0 < value < 0.0001:
        return "< $0.0001"
    return "$0" if value == 0 else dollars(value)


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f}\u00a0%" if whole else "-"


def _lane(key: str) -> Lane:
    return Lane.parse(key)


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "moment": _moment,
        "iso": _iso,
        "ago": _ago,
        "count": _count,
        "money": _money,
        "duration": duration,
        "size": size,
        "lane": _lane,
    }
    made.filters.update(filters)
    made.globals.update(percent=_percent, charts=charts)
    return made


_templates = _environment()
