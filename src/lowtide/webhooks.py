"""Webhooks of the provider: checked, known once, and the batch is asked for at once.

A webhook only says that a batch ended; what came of it is read from the provider. So the worst
that a forged or repeated one could do is a status call, and it is refused all the same.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from celery.utils.log import get_logger
from redis.exceptions import RedisError

from lowtide import keys
from lowtide.errors import LowtideError, SettingsError

if TYPE_CHECKING:
    from openai import OpenAI

    from lowtide.runtime import Runtime

logger = get_logger(__name__)

Event: TypeAlias = Literal["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]
EVENTS: tuple[Event, ...] = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")
MAX_BODY = 65_536
"""Bytes that a webhook may have; real ones have some hundred."""
# Providers repeat a webhook for 72 hours.
_REMEMBERED = 4 * 86_400


class WebhookRefused(LowtideError):
    """A webhook that does not come from the provider, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Received:
    """What a webhook was.

    Attributes:
        event: Its type, such as "batch.completed".
        provider_batch_id: The batch that it is about; None for other events.
        new: False when it came before.
    """

    event: str
    provider_batch_id: str | None
    new: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook endpoint that the provider knows.

    Attributes:
        id: The provider's id.
        url: Where it posts to.
        secret: What it signs with; told only once.
    """

    id: str
    url: str
    secret: str


def receive(
    rt: Runtime, body: bytes, headers: Mapping[str, str], account: str = "default"
) -> Received:
    """Checks a webhook and notes it; fast, the work is left to `act`.

    Args:
        rt: The runtime of the app.
        body: As it came, byte for byte.
        headers: Of the HTTP request.
        account: The account whose secret it is signed with.

    Raises:
        WebhookRefused: The signature is wrong or too old, or the body is no event.
        SettingsError: The account has no webhook secret.
        redis.RedisError: Redis cannot be reached; the provider should try again.
    """
    secret = _secret(rt, account)
    try:
        event: Any = verifier().webhooks.unwrap(body, dict(headers), secret=secret)
        kind, data, webhook_id = event.type, event.data, headers["webhook-id"]
        if not isinstance(kind, str):
            raise TypeError("it is no event")
    except Exception as error:
        _count(rt, "refused")
        raise WebhookRefused(f"A webhook for account {account} was refused: {error}") from None
    batch_id = getattr(data, "id", None) if kind in EVENTS else None
    new = bool(
        rt.redis.set(
            keys.webhook(rt.settings.namespace, webhook_id[:200]), kind, nx=True, ex=_REMEMBERED
        )
    )
    _count(rt, "taken" if new else "repeated")
    return Received(kind, batch_id, new)


def act(rt: Runtime, received: Received) -> bool:
    """Asks for the batch's state at once, in place of at its next poll.

    Returns:
        Whether the batch is one of ours.
    """
    if not received.new or received.provider_batch_id is None:
        return False
    batch = rt.ledger.by_provider_id(received.provider_batch_id)
    if batch is None:
        # Another deployment's, or ours from the moment before its id is noted: a poll finds it.
        logger.info("Webhook %s names an unknown batch", received.event)
        return False
    if batch.state == "SUBMITTED":
        rt.kick("poll", batch.id)
    return True


def counts(rt: Runtime) -> dict[str, int]:
    """How many webhooks were "taken", "repeated" and "refused"."""
    found: Any = rt.redis.hgetall(keys.webhook_counts(rt.settings.namespace))
    return {name.decode(): int(value) for name, value in found.items()}


def register(rt: Runtime, url: str, account: str = "default") -> Endpoint:
    """Makes the provider send its batch events to `url`.

    Args:
        rt: The runtime of the app.
        url: Public HTTPS URL of `/webhooks/openai` on the page.
        account: The account whose key is used.

    Raises:
        LowtideError: The provider has no API for it, or refuses; the message says what to do.
    """
    import openai

    from lowtide.providers import account_of, environment

    chosen = account_of(account, rt.settings)
    key = chosen.api_key.get_secret_value() if chosen.api_key else None
    key = key or environment(chosen.api_key_env or "OPENAI_API_KEY")
    base_url = chosen.base_url or environment("OPENAI_BASE_URL")
    try:
        with openai.OpenAI(api_key=key, base_url=base_url) as client:
            made = client.webhooks.create(event_types=[*EVENTS], name="lowtide", url=url)
    except openai.NotFoundError:
        raise LowtideError(
            f"The provider of account {account} has no API for webhooks. Add {url} by hand in its "
            f"dashboard for {', '.join(EVENTS)}, then set OPENAI_WEBHOOK_SECRET to the secret."
        ) from None
    except openai.OpenAIError as error:
        raise LowtideError(f"The provider did not take the webhook {url}: {error}") from None
    return Endpoint(made.id, made.url, made.signing_secret)


def _secret(rt: Runtime, account: str) -> str:
    from lowtide.providers import account_of, environment

    own = account_of(account, rt.settings).webhook_secret
    secret = own.get_secret_value() if own is not None else environment("OPENAI_WEBHOOK_SECRET")
    if not secret:
        raise SettingsError(
            f"Account {account} has no webhook secret; set OPENAI_WEBHOOK_SECRET, or "
            "webhook_secret of the account in LOWTIDE_ACCOUNTS.",
            {"account": account},
        )
    return secret


def warm_up() -> None:
    """Imports the SDK and checks a webhook of our own, so that no real one waits for that."""
    secret, at = b"lowtide", str(int(time.time()))
    body = b'{"type": "batch.completed", "data": {"id": "batch_warm_up"}}'
    signed = hmac.new(secret, b"warm-up." + at.encode() + b"." + body, hashlib.sha256).digest()
    headers = {
        "webhook-id": "warm-up",
        "webhook-timestamp": at,
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }
    encoded = f"whsec_{base64.b64encode(secret).decode()}"
    verifier().webhooks.unwrap(body, headers, secret=encoded)


@lru_cache(maxsize=1)
def verifier() -> OpenAI:
    """A client that only checks signatures: it calls nobody, its key is never used."""
    import openai

    return openai.OpenAI(api_key="unused", base_url="http://127.0.0.1:9")


def _count(rt: Runtime, what: str) -> None:
    key = keys.webhook_counts(rt.settings.namespace)
    pipe: Any = rt.redis.pipeline(transaction=True)
    pipe.hincrby(key, what, 1)
    pipe.expire(key, max(1, round(rt.settings.state_ttl)))
    # For people only: a webhook that was noted is not to be sent again for it.
    with contextlib.suppress(RedisError):
        pipe.execute()
