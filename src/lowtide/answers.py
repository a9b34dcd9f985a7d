"""The answer cache: a call with `cache=` whose like was answered is answered when it is accepted.

Answers are in Redis, compressed, by the digest of account, endpoint and body, for as long as
their task says. Only what a task could use is kept: an answer that made it fail is asked for anew,
and so is that of a retry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import orjson
import zstandard
from celery.utils.log import get_logger
from redis.exceptions import RedisError

from lowtide import keys
from lowtide.envelope import unpack
from lowtide.request import digest

if TYPE_CHECKING:
    from lowtide.request import Request
    from lowtide.resume import Resumed
    from lowtide.runtime import Runtime

logger = get_logger(__name__)
_LEVEL = 3


def find(rt: Runtime, request: Request) -> dict[str, Any] | None:
    """The response body that a request of the same got, not longer ago than `request.cache`.

    Returns:
        None when there is none, or Redis does not answer: the request is sent then.
    """
    if not request.cache:
        return None
    try:
        data: Any = rt.redis.get(_key(rt, request))
    except (RedisError, OSError) as error:
        logger.info("The answer cache does not answer, the call is sent: %s", error)
        return None
    if data is None:
        return None
    try:
        kept_at, body = orjson.loads(zstandard.ZstdDecompressor().decompress(data))
    except (zstandard.ZstdError, ValueError):
        return None
    return dict(body) if rt.clock.now() - float(kept_at) < request.cache else None


def keep(
    rt: Runtime,
    requests: Mapping[str, Request],
    resumed: Iterable[Resumed],
    bodies: Mapping[str, dict[str, Any]],
) -> None:
    """Keeps the answers that their tasks could use; a Redis that is away or full keeps none.

    Args:
        rt: The runtime of the app.
        requests: custom_id → request.
        resumed: What became of their tasks.
        bodies: custom_id → response body, of those that were answered.
    """
    wanted = [
        (requests[each.custom_id], bodies[each.custom_id])
        for each in resumed
        if requests[each.custom_id].cache and each.custom_id in bodies and _is_of_use(each)
    ]
    if not wanted:
        return
    now = rt.clock.now()
    try:
        pipe = rt.redis.pipeline(transaction=False)
        for request, body in wanted:
            data = zstandard.ZstdCompressor(level=_LEVEL).compress(orjson.dumps([now, body]))
            pipe.set(_key(rt, request), data, px=max(1, round((request.cache or 0.0) * 1000)))
        pipe.execute()
    except (RedisError, OSError, orjson.JSONEncodeError) as error:
        logger.warning("%d answers are not kept for later calls: %s", len(wanted), error)


def _is_of_use(resumed: Resumed) -> bool:
    if resumed.next is not None and unpack(resumed.next.envelope).invalid:
        return False  # it is asked for again, because it does not validate
    return resumed.state in ("SUCCESS", "CONTINUED")


def _key(rt: Runtime, request: Request) -> str:
    return keys.answer(rt.settings.namespace, digest(request.lane, request.body))
