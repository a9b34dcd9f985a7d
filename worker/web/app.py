"""The routes of the page, and the app that they make."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from lowtide import webhooks
from lowtide.errors import LowtideError
from lowtide.runtime import Runtime, of
from worker.web import guard, live, machine, render
from worker.web.cache import Cache
from worker.web.pages import batches, costs, lanes, overview, settings, tables, tasks, tide
from worker.web.runner import Runner

_HERE = Path(__file__).parent


def make_app(rt: Runtime | None = None) -> Starlette:
    """The page of one deployment.

    Args:
        rt: The runtime of its Celery app; that of `worker.app` when left out.
    """
    if rt is None:
        from worker.app import app as celery_app

        rt = of(celery_app)
    rt.app.loader.import_default_modules()
    app = Starlette(
        routes=_routes(),
        lifespan=_lifespan,
        middleware=[Middleware(guard.Guard, rt=rt)],
        exception_handlers={
            404: render.not_found,
            LowtideError: render.refused,
            Exception: render.broken,
        },
    )
    app.state.rt = rt
    app.state.cache = Cache()
    app.state.runner = Runner(rt)
    app.state.live = live.Changes(rt)
    return app


def _routes() -> list[Route | Mount]:
    return [
        Route("/", overview.overview),
        Route("/lanes", lanes.lanes),
        Route("/lanes/{verb:str}", lanes.act, methods=["POST"]),
        Route("/batches", batches.batches),
        Route("/batches/{batch_id:str}", batches.batch),
        Route("/batches/{batch_id:str}/requests.csv", batches.download),
        Route("/batches/{batch_id:str}/input.jsonl", batches.lines),
        Route("/batches/{batch_id:str}/{verb:str}", batches.act, methods=["POST"]),
        Route("/tasks/{task_id:str}", tasks.task),
        Route("/find", tasks.find),
        Route("/costs", costs.costs),
        Route("/tide", tide.tide),
        Route("/tables", tables.tables),
        Route("/tables", tables.upload, methods=["POST"]),
        Route("/tables/{run_id:str}", tables.table),
        Route("/tables/{run_id:str}/answers.{form:str}", tables.download),
        Route("/tables/{run_id:str}/{verb:str}", tables.act, methods=["POST"]),
        Route("/settings", settings.settings),
        Route("/doctor", settings.doctor),
        Route("/login", guard.login, methods=["GET", "POST"]),
        Route("/logout", guard.logout, methods=["POST"]),
        Route("/live", live.stream),
        Route("/health", machine.health),
        Route("/ready", machine.ready),
        Route("/metrics", machine.metrics),
        Route("/webhooks/openai", machine.webhook, methods=["POST"]),
        Route("/webhooks/openai/{account:str}", machine.webhook, methods=["POST"]),
        Mount("/static", StaticFiles(directory=_HERE / "static")),
    ]


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    # The SDK takes a second to import; the first webhook shall not wait for it.
    threading.Thread(target=webhooks.verifier, name="warm-up", daemon=True).start()
    await run_in_threadpool(app.state.runner.go_on)
    try:
        yield
    finally:
        app.state.live.stop()
        await run_in_threadpool(app.state.runner.stop)
