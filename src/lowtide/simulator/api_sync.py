"""The model endpoints asked directly, at full price: chat, responses, embeddings and so on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide.simulator.answers import body_hash
from lowtide.simulator.api import authorize, json_answer, read_json
from lowtide.simulator.errors import ApiError, invalid_type
from lowtide.simulator.records import BATCH_ENDPOINTS
from lowtide.simulator.store import Run
from lowtide.simulator.world import World


class ModelEndpoints:
    """The handlers, with the world that they act on."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        """All routes, without the ``/v1`` prefix."""
        return [
            Route(endpoint.removeprefix("/v1"), self.answer, methods=["POST"])
            for endpoint in BATCH_ENDPOINTS
        ]

    async def answer(self, request: Request) -> Response:
        """Answer one request and account for it as ``sync`` or ``flex``."""
        world = self._world
        authorize(request, world)
        body = await read_json(request)
        if not isinstance(body, Mapping):
            raise invalid_type("body", "an object", body)
        if body.get("stream"):
            raise ApiError(400, "Streaming is not supported here.", param="stream")
        now = world.clock.now()
        answer = world.answerer.answer
        if world.settings.upstream:
            made = await asyncio.to_thread(answer, request.url.path, body, now)
        else:
            made = answer(request.url.path, body, now)
        model = body.get("model")
        world.store.add_run(
            Run(
                "flex" if body.get("service_tier") == "flex" else "sync", None, None,
                body_hash(body), model if isinstance(model, str) else None, made.status,
                int(200 <= made.status < 300), *made.tokens,
            )
        )  # fmt: skip
        return json_answer(made.body, made.status)
