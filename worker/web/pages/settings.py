"""Settings with where they come from, and the doctor."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from lowtide.doctor import examine
from lowtide.runtime import Runtime
from lowtide.settings import PREFIX, Settings, sources
from lowtide.shown import setting, without_password
from worker.web import render


def settings(request: Request) -> Response:
    """`/settings`."""
    rt: Runtime = request.app.state.rt
    given = rt.app.conf.get("lowtide") or {}
    where = sources(given)
    rows = [
        (
            PREFIX + name.upper(),
            setting(name, getattr(rt.settings, name)),
            where[name],
            field.description,
        )
        for name, field in Settings.model_fields.items()
    ]
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
