"""The few places where Celery and kombu are reached below their public, or typed, surface."""

from __future__ import annotations

import json
from typing import Any

from celery import Celery, current_app
from kombu import serialization
from kombu.utils import encoding
from kombu.utils.json import object_hook

_kombu: Any = serialization
_encoding: Any = encoding
_decoder = json.JSONDecoder(object_hook=object_hook)


def this_app() -> Celery:
    """The current app itself, not the proxy to whichever is current later."""
    return current_app._get_current_object()  # noqa: SLF001 - Celery's own way to do it


def dump(value: Any, serializer: str) -> tuple[str, str, bytes]:
    """(content type, content encoding, data) of `value`, as kombu serializes message bodies."""
    content_type, content_encoding, data = _kombu.dumps(value, serializer)
    return content_type, content_encoding, data.encode() if isinstance(data, str) else bytes(data)


def load(app: Celery, data: bytes, content_type: str, content_encoding: str) -> Any:
    """What `dump` serialized.

    Raises:
        kombu.exceptions.ContentDisallowed: The app does not accept the content type.
    """
    accepted = app.conf.accept_content
    if content_type == "application/json" and (accepted is None or "json" in accepted):
        # As kombu does it, but for making a decoder each time.
        return _decoder.decode(data.decode(content_encoding))
    accept = _kombu.prepare_accept_content(accepted)
    return _kombu.loads(data, content_type, content_encoding, accept=accept)


def shown(value: Any) -> str:
    """`repr(value)`, also for values whose own fails."""
    return str(_encoding.safe_repr(value))


def load_own(app: Celery, data: bytes, content_type: str, content_encoding: str) -> Any:
    """What `dump` serialized as the app serializes its results: it was never on a broker."""
    accept = _kombu.prepare_accept_content(["json", app.conf.result_serializer])
    return _kombu.loads(data, content_type, content_encoding, accept=accept)
