"""The routes of the page, and the app that they make."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
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

logger = logging.getLogger(__name__)
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
            HTTPException: render.stopped,
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
    await run_in_threadpool(_warm_up, app.state.rt)
    await run_in_threadpool(app.state.runner.go_on)
    try:
        yield
    finally:
        app.state.live.stop()
        await run_in_threadpool(app.state.runner.stop)


def _warm_up(rt: Runtime) -> None:
    """Imports and connects what the first request would otherwise wait for."""
    try:
        webhooks.warm_up()
        rt.redis.ping()
        rt.ledger.check()
    except (RedisError, LowtideError, OSError) as error:
        logger.warning("The page starts all the same: %s", error)
