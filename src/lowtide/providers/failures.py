"""Every way in which a call through the openai SDK fails, as one of lowtide's errors."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
import openai

from lowtide import lenient
from lowtide.errors import (
    AccountPaused,
    BatchFailed,
    CreateAmbiguous,
    LowtideError,
    ProviderError,
    ProviderUnavailable,
)

PAUSING_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "account_deactivated",
        "invalid_api_key",
    }
)
"""Error codes about the account as a whole: it can be used again when a person has seen to it."""
_PAUSING_STATUSES = frozenset({401, 402, 403})
# A key without access to one model is still good for others.
_MODEL_CODES = frozenset({"model_not_found"})
PASSING_CODES = frozenset({"token_limit_exceeded", "rate_limit_exceeded"})
"""Error codes about how much the account asks at once: the same may be taken later."""
_PASSING_STATUSES = frozenset({408, 409, 425, 429})
# The request cannot have reached the provider when one of these is the cause.
_UNSENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
_SHOWN_CHARACTERS = 300
# OpenAI masks the key that it complains of; not every service does.
_KEY = re.compile(r"\b(?:sk|gsk|pk|key|tok)[-_][\w-]{8,}|(?<=[Bb]earer )\S+")
_LONGEST_WAIT = 86_400.0


@contextmanager
def translated(
    account: str,
    doing: str,
    *,
    refused: type[LowtideError] = ProviderError,
    creating: bool = False,
) -> Iterator[None]:
    """Turns what the SDK raises in the block into lowtide's errors.

    Args:
        account: Name of the account, for the message.
        doing: What was being done, such as "creating batch b1".
        refused: The error for a refusal that trying again does not change.
        creating: Whether an answer that did not come leaves it open if something was made.
    """
    try:
        yield
    except openai.APIStatusError as error:
        raise _from_status(error, account, doing, refused, creating=creating) from None
    except (openai.APIConnectionError, httpx2.HTTPError) as error:
        raise _from_connection(error, account, doing, creating=creating) from None
    except (openai.OpenAIError, httpx2.InvalidURL) as error:
        raise AccountPaused(
            f"Account {account} cannot be used for {doing}: {shown(error)}",
            {"account": account, "cause": type(error).__name__},
        ) from None


def unreadable(account: str, doing: str, *, creating: bool) -> ProviderError:
    """The error for an answer of 2xx that is not what the API promises."""
    kind = CreateAmbiguous if creating else ProviderUnavailable
    return kind(
        f"Account {account}: {doing} got an answer that cannot be read; trying again.",
        {"account": account, "code": "unreadable_answer"},
    )


def _from_connection(
    error: Exception, account: str, doing: str, *, creating: bool
) -> ProviderError:
    cause = error.__cause__ if isinstance(error, openai.APIError) and error.__cause__ else error
    details = {"account": account, "cause": type(cause).__name__}
    reason = f"{type(cause).__name__}: {shown(cause)}".rstrip(": ")
    if creating and not isinstance(cause, _UNSENT):
        return CreateAmbiguous(
            f"Account {account}: {doing} was sent and not answered ({reason}); looking whether "
            "it was made.",
            details,
        )
    return ProviderUnavailable(
        f"Account {account}: {doing} did not reach the provider ({reason}).", details
    )


def _from_status(
    error: openai.APIStatusError,
    account: str,
    doing: str,
    refused: type[LowtideError],
    *,
    creating: bool,
) -> LowtideError:
    status = error.status_code
    # Mended: the words go to Redis, the ledger and results.
    told = lenient.mended(error.body)
    body = told if isinstance(told, dict) else {}
    codes = [str(body[name]) for name in ("code", "type") if body.get(name)]
    details = _details(error, account, body, codes)
    reason = " ".join([str(status), *codes[:1]])
    message = body.get("message")
    said = f": {shown(message)}" if isinstance(message, str) and message else "."
    if creating and (status >= 500 or status in (408, 409)):
        return CreateAmbiguous(
            f"Account {account}: {doing} was answered with {reason}; looking whether it was made.",
            details,
        )
    if _pauses(status, codes):
        return AccountPaused(
            f"Account {account} is refused ({reason}) while {doing}{said} "
            "Check its key, quota and billing.",
            details,
        )
    if (status < 400 or (status in (404, 405) and not body)) and refused is BatchFailed:
        # Nothing is wrong with the batch, so it must not fail.
        return AccountPaused(
            f"Account {account}: {doing} found no Batch API there ({reason}). Check its base_url.",
            details,
        )
    if _passes(status, codes):
        return ProviderUnavailable(
            f"Account {account}: {doing} was put off ({reason}){said}", details
        )
    return refused(f"Account {account}: {doing} was refused ({reason}){said}", details)


def _details(
    error: openai.APIStatusError, account: str, body: Mapping[str, Any], codes: list[str]
) -> dict[str, Any]:
    found = {
        "account": account,
        "status": error.status_code,
        "code": codes[0] if codes else ("not_found" if error.status_code == 404 else None),
        "param": body.get("param"),
        "request_id": error.request_id,
        "retry_after": _retry_after(error.response.headers),
    }
    return {name: value for name, value in found.items() if value is not None}


def _passes(status: int, codes: list[str]) -> bool:
    """Whether the same call may succeed later."""
    return status >= 500 or status in _PASSING_STATUSES or not PASSING_CODES.isdisjoint(codes)


def _pauses(status: int, codes: list[str]) -> bool:
    """Whether the account as a whole is refused."""
    if not PAUSING_CODES.isdisjoint(codes):
        return True
    return status in _PAUSING_STATUSES and _MODEL_CODES.isdisjoint(codes)


def shown(value: object) -> str:
    """A provider's words on one line of bounded length, without anything like a key."""
    text = _KEY.sub("…", " ".join(str(value).split()))
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds that the provider asks to wait."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return min(seconds, _LONGEST_WAIT)
    try:
        moment = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except (TypeError, ValueError):
        return None
    return min(max(0.0, moment.timestamp() - time.time()), _LONGEST_WAIT)
