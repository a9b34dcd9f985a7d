"""The simulator's own endpoints below ``/simulator``: what a test, or a person, steers it with."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from lowtide.simulator import page, report
from lowtide.simulator.api import json_answer, read_json
from lowtide.simulator.errors import ApiError
from lowtide.simulator.fault_kinds import KINDS
from lowtide.simulator.turnaround import parse, seconds
from lowtide.simulator.world import World

_PHASES = ("validating", "working", "finalizing", "cancelling")


class Admin:
    """The handlers, with the world that they act on."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        """All routes, without the ``/simulator`` prefix."""
        return [
            Route("/", self.page, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/report", self.report, methods=["GET"]),
            Route("/clock", self.get_clock, methods=["GET"]),
            Route("/clock", self.set_clock, methods=["POST"]),
            Route("/turnaround", self.set_turnaround, methods=["POST"]),
            Route("/faults", self.list_faults, methods=["GET"]),
            Route("/faults", self.add_faults, methods=["POST"]),
            Route("/faults", self.remove_faults, methods=["DELETE"]),
            Route("/faults/{rule_id}", self.remove_faults, methods=["DELETE"]),
            Route("/fault-kinds", self.fault_kinds, methods=["GET"]),
            Route("/webhooks", self.list_hooks, methods=["GET"]),
            Route("/webhooks", self.add_hook, methods=["POST"]),
            Route("/webhooks/deliveries", self.deliveries, methods=["GET"]),
            Route("/webhooks/{hook_id}", self.remove_hook, methods=["DELETE"]),
        ]

    async def page(self, request: Request) -> Response:
        """``GET /simulator/``: the view for a person."""
        del request
        return HTMLResponse(page.render(self._world))

    async def health(self, request: Request) -> Response:
        """``GET /simulator/health``: is it up?"""
        del request
        return json_answer({"status": "ok"})

    async def report(self, request: Request) -> Response:
        """``GET /simulator/report?requests=false&min_ran=2``."""
        query = request.query_params
        shown: dict[str, Any] = {"totals": report.totals(self._world.store)}
        if query.get("requests", "true") != "false":
            least = _number(query.get("min_ran", "1"))
            shown["requests"] = report.requests(self._world.store, least)
        return json_answer(shown)

    # ---- time
    async def get_clock(self, request: Request) -> Response:
        """``GET /simulator/clock``."""
        del request
        return json_answer(self._world.clock_state())

    async def set_clock(self, request: Request) -> Response:
        """``POST /simulator/clock``: ``{"advance": "24h"}``, ``{"set": unix}``, ``{"frozen": b}``.

        The answer comes when all that is due by then has happened.
        """
        wish = _table(await read_json(request), ("advance", "set", "frozen"))
        clock = self._world.clock
        try:
            if "frozen" in wish:
                (clock.freeze if wish["frozen"] else clock.run)()
            if "set" in wish:
                clock.advance(float(wish["set"]) - clock.now())
            if "advance" in wish:
                clock.advance(seconds(wish["advance"]))
        except (AttributeError, TypeError, ValueError) as error:
            raise ApiError(400, f"Invalid clock: {error}") from error
        settled = await asyncio.to_thread(self._world.moved)
        return json_answer({**self._world.clock_state(), "settled": settled})

    async def set_turnaround(self, request: Request) -> Response:
        """``POST /simulator/turnaround``: ``{"working": "uniform:1h,5h"}``, for new batches."""
        wish = _table(await read_json(request), _PHASES)
        try:
            phases = {name: parse(spec) for name, spec in wish.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise ApiError(400, f"Invalid turnaround: {error}") from error
        self._world.set_turnaround(**phases)
        return json_answer(wish)

    # ---- faults
    async def list_faults(self, request: Request) -> Response:
        """``GET /simulator/faults``: all rules with their counters."""
        del request
        return json_answer({"faults": self._world.faults.rules()})

    async def fault_kinds(self, request: Request) -> Response:
        """``GET /simulator/fault-kinds``: what can be planned."""
        del request
        return json_answer({name: asdict(kind) for name, kind in KINDS.items()})

    async def add_faults(self, request: Request) -> Response:
        """``POST /simulator/faults``: one rule, or a list of rules; answers them with their ids."""
        wish = await read_json(request)
        tables = wish if isinstance(wish, list) else [wish]
        try:
            made = [self._world.faults.add(table) for table in tables]
        except (AttributeError, TypeError, ValueError) as error:
            raise ApiError(400, f"Invalid fault: {error}") from error
        return json_answer({"faults": made})

    async def remove_faults(self, request: Request) -> Response:
        """``DELETE /simulator/faults`` and ``DELETE /simulator/faults/{id}``."""
        gone = self._world.faults.remove(request.path_params.get("rule_id"))
        return json_answer({"removed": gone})

    # ---- webhooks
    async def list_hooks(self, request: Request) -> Response:
        """``GET /simulator/webhooks``: the endpoints, with their secrets."""
        del request
        return json_answer({"webhooks": [asdict(hook) for hook in self._world.hooks.endpoints()]})

    async def add_hook(self, request: Request) -> Response:
        """``POST /simulator/webhooks``: ``url``, and as wished events, secret, account."""
        wish = _table(await read_json(request), ("url", "events", "secret", "account"))
        account = wish.get("account", self._world.settings.accounts[0].name)
        try:
            made = self._world.hooks.add(
                str(wish.get("url", "")), wish.get("events") or (), wish.get("secret"), account
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise ApiError(400, f"Invalid webhook: {error}") from error
        return json_answer(made)

    async def remove_hook(self, request: Request) -> Response:
        """``DELETE /simulator/webhooks/{id}``."""
        gone = self._world.hooks.remove(request.path_params["hook_id"])
        return json_answer({"removed": int(gone)}, 200 if gone else 404)

    async def deliveries(self, request: Request) -> Response:
        """``GET /simulator/webhooks/deliveries``: the latest first."""
        del request
        return json_answer({"deliveries": self._world.hooks.deliveries()})


def _table(wish: Any, known: tuple[str, ...]) -> dict[str, Any]:
    unknown = set(wish) - set(known) if isinstance(wish, dict) else {"body"}
    if unknown:
        names = ", ".join(sorted(map(str, unknown)))
        raise ApiError(400, f"Unknown: {names}; there are {', '.join(known)}")
    return dict(wish)


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ApiError(400, f"not a number: {text!r}") from error
