"""Faults of single HTTP requests: an ASGI middleware that acts by the plan."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lowtide.simulator.connections import drop
from lowtide.simulator.errors import (
    ApiError,
    billing_limit,
    insufficient_quota,
    no_such_file,
    rate_limited,
    server_error,
)
from lowtide.simulator.faults import Faults, Rule

_BEAT = 0.05  # seconds between two pieces of a slow answer
_Act = Callable[[Rule, Scope, Receive, Send], Awaitable[None]]


class FaultMiddleware:
    """Lets the plan act on every request below ``/v1``.

    Args:
        app: the application.
        faults: the plan.
    """

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults
        self._acts: dict[str, _Act] = {
            "refuse": self._refuse,
            "cut_before": self._cut_before,
            "cut_after": self._cut_after,
            "cut_middle": self._cut_middle,
            "error_after": self._error_after,
            "slow": self._slow,
            "truncate": self._truncate,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, or what takes its place."""
        rule = None
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            rule = self._faults.http(scope["method"], scope["path"])
        if rule is None:
            await self._app(scope, receive, send)
        elif rule.kind in self._acts:
            await self._acts[rule.kind](rule, scope, receive, send)
        else:
            await _drain(receive)
            await _answer(_error(rule, scope), scope, receive, send)

    async def _refuse(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        del rule, send
        drop(scope, flush=False)
        await _gone(receive)

    async def _cut_before(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        del rule, send
        await _drain(receive)
        drop(scope, flush=False)
        await _gone(receive)

    async def _cut_after(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        del rule, send
        await self._app(scope, receive, _swallow)
        drop(scope, flush=False)
        await _gone(receive)

    async def _error_after(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, _swallow)
        await _answer(server_error(int(rule.params["status"])), scope, receive, send)

    async def _cut_middle(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        del rule
        left = 0

        async def half(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                left = max(1, int(Headers(scope=message).get("content-length", "2")) // 2)
                await send(message)
                return
            if left > 0:
                await send({**message, "body": message["body"][:left], "more_body": True})
                left -= len(message["body"])
                if left <= 0:
                    drop(scope, flush=True)

        await self._app(scope, receive, half)
        await _gone(receive)

    async def _truncate(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        left = 0

        async def shorter(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                left = int(int(headers.get("content-length", "0")) * float(rule.params["share"]))
                headers["content-length"] = str(left)
                await send(message)
                return
            body = message.get("body", b"")[:left]
            left -= len(body)
            await send({**message, "body": body})

        await self._app(scope, receive, shorter)

    async def _slow(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        rate = float(rule.params["bytes_per_second"])

        async def slowly(message: Message) -> None:
            body = message.get("body", b"")
            if message["type"] == "http.response.start":
                await asyncio.sleep(float(rule.params["delay"]))
            elif rate > 0:
                size = max(1, int(rate * _BEAT))
                while len(body) > size:
                    await send({**message, "body": body[:size], "more_body": True})
                    body = body[size:]
                    await asyncio.sleep(_BEAT)
                message = {**message, "body": body}
            await send(message)

        await self._app(scope, receive, slowly)


def _error(rule: Rule, scope: Scope) -> ApiError:
    if rule.kind == "rate_limit":
        return rate_limited(float(rule.params["retry_after"]))
    if rule.kind == "content_missing":
        return no_such_file(scope["path"].split("/")[3])
    if rule.kind == "insufficient_quota":
        return insufficient_quota()
    if rule.kind == "billing_limit":
        return billing_limit(int(rule.params["status"]))
    return server_error(int(rule.params["status"]))


async def _answer(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    answer = Response(
        orjson.dumps(error.body()), error.status, error.headers, media_type="application/json"
    )
    await answer(scope, receive, send)


async def _swallow(message: Message) -> None:
    del message


async def _drain(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass


async def _gone(receive: Receive) -> None:
    """Wait until the server has noticed that the connection is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
