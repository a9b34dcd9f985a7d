"""Settings with where they come from, and the doctor."""

from __future__ import annotations

import os

from dotenv import dotenv_values
from starlette.requests import Request
from starlette.responses import Response

from lowtide.doctor import examine
from lowtide.runtime import Runtime
from lowtide.settings import PREFIX, Settings
from lowtide.shown import setting, without_password
from worker.web import render


def settings(request: Request) -> Response:
    """`/settings`."""
    rt: Runtime = request.app.state.rt
    given = rt.app.conf.get("lowtide") or {}
    in_file = dotenv_values(".env")
    rows = []
    for name, field in Settings.model_fields.items():
        variable = PREFIX + name.upper()
        source = "default"
        if name in given:
            source = "app"
        elif variable in os.environ:
            source = "environment"
        elif variable in in_file:
            source = ".env"
        rows.append(
            (variable, setting(name, getattr(rt.settings, name)), source, field.description)
        )
    return render.page(
        request,
        "settings.html",
        title="Settings",
        rows=rows,
        redis=without_password(rt.redis_url),
        ledger=rt.ledger.name,
        tasks=sorted(name for name in rt.app.tasks if not name.startswith(("celery.", "lowtide."))),
    )


def doctor(request: Request) -> Response:
    """`/doctor`: looks at every part now, which takes some seconds."""
    findings = list(examine(request.app.state.rt))
    return render.page(request, "doctor.html", title="Doctor", findings=findings)
