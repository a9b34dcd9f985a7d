"""The ASGI application."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lowtide.simulator.admin import Admin
from lowtide.simulator.api import FilesAndBatches, json_answer
from lowtide.simulator.api_sync import ModelEndpoints
from lowtide.simulator.errors import ApiError, server_error, unknown_url, wrong_method
from lowtide.simulator.fault_http import FaultMiddleware
from lowtide.simulator.settings import SimulatorSettings
from lowtide.simulator.world import World


def create_app(settings: SimulatorSettings | None = None) -> Starlette:
    """A simulator as an ASGI application, for any ASGI server.

    It starts its engine with the application's lifespan. ``app.state.world`` is its inside.

    Args:
        settings: what it is told; the default answers at once and keeps nothing.
    """
    world = World(settings or SimulatorSettings())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        world.start()
        try:
            yield
        finally:
            world.stop()

    app = Starlette(
        routes=[
            Mount(
                "/v1", routes=[*FilesAndBatches(world).routes(), *ModelEndpoints(world).routes()]
            ),
            Mount("/simulator", routes=Admin(world).routes()),
            Route("/", RedirectResponse("/simulator/")),
        ],
        exception_handlers={
            ApiError: _api_error,
            HTTPException: _http_error,
            Exception: _our_error,
        },
        lifespan=lifespan,
    )
    app.add_middleware(FaultMiddleware, faults=world.faults)
    app.add_middleware(ServiceHeaders)  # outermost: faults answer with these headers too
    app.state.world = world
    return app


class ServiceHeaders:
    """Adds the headers that every answer of the service carries."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, headers added to its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = f"req_{secrets.token_hex(16)}"
                headers["openai-version"] = "2020-10-01"
                headers["openai-processing-ms"] = str(round((time.perf_counter() - began) * 1000))
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def _api_error(request: Request, error: Exception) -> Response:
    del request
    if not isinstance(error, ApiError):
        raise error
    return json_answer(error.body(), error.status, error.headers)


async def _our_error(request: Request, error: Exception) -> Response:
    """A defect of ours looks like one of the service's; the server logs what it was."""
    del request, error
    return json_answer(server_error().body(), 500)


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    make = wrong_method if error.status_code == 405 else unknown_url
    made = make(request.method, request.url.path)
    return json_answer(made.body(), made.status, dict(error.headers or {}))
