"""The simulator's own endpoints below ``/simulator``: report and clock."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide.simulator import report
from lowtide.simulator.api import json_answer, read_json
from lowtide.simulator.errors import ApiError
from lowtide.simulator.turnaround import seconds
from lowtide.simulator.world import World


class Admin:
    """The handlers, with the world that they act on."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        """All routes, without the ``/simulator`` prefix."""
        return [
            Route("/report", self.report, methods=["GET"]),
            Route("/clock", self.get_clock, methods=["GET"]),
            Route("/clock", self.set_clock, methods=["POST"]),
            Route("/health", self.health, methods=["GET"]),
        ]

    async def health(self, request: Request) -> Response:
        """Is it up?"""
        del request
        return json_answer({"status": "ok"})

    async def report(self, request: Request) -> Response:
        """``GET /simulator/report?requests=false&min_ran=2``."""
        query = request.query_params
        shown: dict[str, Any] = {"totals": report.totals(self._world.store)}
        if query.get("requests", "true") != "false":
            least = int(query.get("min_ran", "1"))
            shown["requests"] = report.requests(self._world.store, least)
        return json_answer(shown)

    async def get_clock(self, request: Request) -> Response:
        """``GET /simulator/clock``."""
        del request
        return json_answer(self._world.clock_state())

    async def set_clock(self, request: Request) -> Response:
        """``POST /simulator/clock``: ``{"advance": "24h"}``, ``{"set": unix}``, ``{"frozen": b}``.

        The answer comes when all that is due by then has happened.
        """
        wish = await read_json(request)
        try:
            self._move(wish)
        except (TypeError, ValueError) as error:
            raise ApiError(400, f"Invalid clock: {error}") from error
        self._world.keep_clock()
        settled = await asyncio.to_thread(self._world.engine.settle)
        return json_answer({**self._world.clock_state(), "settled": settled})

    def _move(self, wish: Any) -> None:
        clock = self._world.clock
        unknown = set(wish) - {"advance", "set", "frozen"} if isinstance(wish, dict) else {"body"}
        if unknown:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        if "frozen" in wish:
            (clock.freeze if wish["frozen"] else clock.run)()
        if "set" in wish:
            clock.advance(float(wish["set"]) - clock.now())
        if "advance" in wish:
            clock.advance(seconds(wish["advance"]))
