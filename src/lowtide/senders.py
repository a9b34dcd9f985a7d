"""How each kind of destination is told: signed webhook, Redis stream, Celery result backend."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import httpx2
from kombu.exceptions import EncodeError
from redis.exceptions import RedisError

from lowtide.carried import RESULTS
from lowtide.connect import connect
from lowtide.destinations import KEPT, Destination, check
from lowtide.messages import Told
from lowtide.named import named_backend

if TYPE_CHECKING:
    from lowtide.runtime import Runtime

_AGENT = "lowtide"
_LONGEST_WAIT = 3600.0
_GONE = 410
# The value's fault, not the backend's.
_UNFIT = (EncodeError, TypeError, ValueError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Refused:
    """A destination did not accept a message.

    Attributes:
        reason: For people; nothing of the message is in it.
        wait: Seconds that the destination asks to be left alone; None when it does not ask.
        gone: It wants no more messages at all.
    """

    reason: str
    wait: float | None = None
    gone: bool = False


class Sender(Protocol):
    """What tells one destination. `wave`: how many messages it is given at a time."""

    wave: int

    def send(self, told: Sequence[Told]) -> list[Refused | None]:
        """What became of each message, in their order; None: accepted."""
        ...

    def close(self) -> None:
        """Ends its connections."""
        ...


def sender(rt: Runtime, destination: str) -> Sender:
    """What tells the destination of that name in the outbox.

    Raises:
        SettingsError: The settings do not have it, or not its secret.
    """
    if destination == KEPT:
        return _Forgets()
    check(rt.settings, [destination])
    if destination.startswith(RESULTS):
        return _Backend(named_backend(destination.removeprefix(RESULTS), rt.app))
    chosen = rt.settings.destinations[destination]
    if chosen.stream is not None:
        own = chosen.redis_url
        url = rt.redis_url if own is None else own.get_secret_value()
        return _Stream(connect(url), chosen.stream, chosen.maxlen)
    timeout = min(chosen.timeout, rt.settings.lease / 3)
    return _Webhook(chosen, chosen.secrets(destination), timeout)


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature as in the header `webhook-signature`, by Standard Webhooks 1.0.0."""
    signed = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


class _Webhook:
    """Posts each message by itself, several at a time; follows no redirect."""

    wave = 8

    def __init__(self, destination: Destination, keys: Sequence[bytes], timeout: float) -> None:
        self._url = str(destination.webhook)
        self._keys = keys
        self._client = httpx2.Client(timeout=timeout, follow_redirects=False)
        self._pool = ThreadPoolExecutor(self.wave)

    def send(self, told: Sequence[Told]) -> list[Refused | None]:
        return list(self._pool.map(self._post, told))

    def close(self) -> None:
        self._pool.shutdown()
        self._client.close()

    def _post(self, told: Told) -> Refused | None:
        body, at = told.body(), int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": _AGENT,
            "webhook-id": told.custom_id,
            "webhook-timestamp": str(at),
            "webhook-signature": " ".join(
                sign(key, told.custom_id, at, body) for key in self._keys
            ),
        }
        try:
            with self._client.stream("POST", self._url, content=body, headers=headers) as response:
                return _judged(response)
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            return Refused(type(error).__name__)


def _judged(response: httpx2.Response) -> Refused | None:
    """Only 2xx says that the message was taken."""
    status = response.status_code
    if 200 <= status < 300:
        return None
    if status == _GONE:
        return Refused("it answered 410 Gone", gone=True)
    return Refused(f"it answered {status}", wait=_retry_after(response))


def _retry_after(response: httpx2.Response) -> float | None:
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(0.0, seconds), _LONGEST_WAIT) if math.isfinite(seconds) else None


class _Stream:
    """Adds messages to a Redis stream, many in one round trip."""

    wave = 100

    def __init__(self, redis: Any, stream: str, maxlen: int) -> None:
        self._redis = redis
        self._stream = stream
        self._maxlen = maxlen

    def send(self, told: Sequence[Told]) -> list[Refused | None]:
        pipe = self._redis.pipeline(transaction=False)
        for each in told:
            entry = {"id": each.custom_id, "task_id": each.task_id, "body": each.body()}
            pipe.xadd(self._stream, entry, maxlen=self._maxlen, approximate=True)
        try:
            answers = pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            return [_reason(error)] * len(told)
        return [_reason(each) if isinstance(each, Exception) else None for each in answers]

    def close(self) -> None:
        """Its connections are shared with others."""


class _Backend:
    """Stores results in a Celery result backend, as Celery does."""

    wave = 100

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def send(self, told: Sequence[Told]) -> list[Refused | None]:
        found: list[Refused | None] = []
        away: Refused | None = None
        for each in told:
            if away is None:
                try:
                    self._store(each)
                except _UNFIT as error:
                    found.append(_reason(error))
                    continue
                except Exception as error:
                    away = _reason(error)  # each try more would take as long
            found.append(away)
        return found

    def close(self) -> None:
        """Its connections are shared with others."""

    def _store(self, told: Told) -> None:
        ending = told.ending
        self._backend.store_result(
            told.task_id,
            ending.value,
            ending.state,
            traceback=ending.traceback,
            request=told.context(),
        )


class _Forgets:
    """Lets go of results whose time in the ledger is over."""

    wave = 500

    def send(self, told: Sequence[Told]) -> list[Refused | None]:
        return [None] * len(told)

    def close(self) -> None:
        """There are none."""


def _reason(error: Exception) -> Refused:
    """The kind of error alone: its words may repeat the URL or the value."""
    return Refused(type(error).__name__)
