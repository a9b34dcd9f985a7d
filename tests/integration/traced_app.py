"""The user's app, whose worker tells for how many answers it ran Celery's tracer."""

from __future__ import annotations

from typing import Any

from lowtide import accept, resume
from tests.integration.app import app

_traced: list[str] = []


def _noting(app: Any, task: Any, request: dict[str, Any], turn: Any) -> Any:
    _traced.append(request["id"])
    return accept.trace(app, task, request, turn)


vars(resume)["trace"] = _noting


@app.task(name="shop.traced")
def traced() -> list[str]:
    """Ids of the calls that Celery's tracer ended in this process."""
    return _traced
