"""What programs ask: health, readiness, metrics; and the provider's webhooks."""

from __future__ import annotations

import logging
from typing import Any

from redis.exceptions import RedisError
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from lowtide import metrics as exposition
from lowtide import webhooks
from lowtide.errors import LowtideError, SettingsError
from lowtide.runtime import Runtime

logger = logging.getLogger(__name__)


def health(request: Request) -> Response:
    """`/health`: this process serves."""
    del request
    return PlainTextResponse("ok\n")


def ready(request: Request) -> Response:
    """`/ready`: this process can ask Redis and the ledger."""
    rt: Runtime = request.app.state.rt
    parts = {"redis": _works(rt.redis.ping), "ledger": _works(rt.ledger.check)}
    return JSONResponse(parts, 200 if all(parts.values()) else 503)


def metrics(request: Request) -> Response:
    """`/metrics`: for Prometheus."""
    return Response(
        exposition.render(request.app.state.rt), headers={"content-type": exposition.CONTENT_TYPE}
    )


async def webhook(request: Request) -> Response:
    """`/webhooks/openai[/ACCOUNT]`: checked and noted now, acted on after the answer."""
    rt: Runtime = request.app.state.rt
    account = request.path_params.get("account", "default")
    body = await _body(request)
    if body is None:
        return PlainTextResponse("too large\n", 413)
    try:
        received = await run_in_threadpool(webhooks.receive, rt, body, request.headers, account)
    except webhooks.WebhookRefused as error:
        logger.warning("%s", error)
        return PlainTextResponse("refused\n", 400)
    except SettingsError as error:
        logger.warning("%s", error)
        return PlainTextResponse("not set up\n", 404)
    except RedisError as error:
        logger.warning("A webhook could not be noted, the provider sends it again: %s", error)
        return PlainTextResponse("later\n", 503)
    return PlainTextResponse("ok\n", background=BackgroundTask(_act, rt, received))


def _act(rt: Runtime, received: webhooks.Received) -> None:
    try:
        webhooks.act(rt, received)
    except (RedisError, LowtideError, OSError) as error:
        logger.warning("Batch %s waits for its next poll: %s", received.provider_batch_id, error)


async def _body(request: Request) -> bytes | None:
    """The body, None when it is larger than any webhook."""
    parts = bytearray()
    async for chunk in request.stream():
        parts += chunk
        if len(parts) > webhooks.MAX_BODY:
            return None
    return bytes(parts)


def _works(ask: Any) -> bool:
    """Whether asking works; the ledger's check gives a list of problems."""
    try:
        found = ask()
    except (RedisError, LowtideError, OSError):
        return False
    return found == [] or found is True
