"""The few places where Celery and kombu are reached below their public, or typed, surface."""

from __future__ import annotations

from typing import Any

from celery import Celery, current_app
from kombu import serialization
from kombu.utils import encoding

_kombu: Any = serialization
_encoding: Any = encoding


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
    accept = _kombu.prepare_accept_content(app.conf.accept_content)
    return _kombu.loads(data, content_type, content_encoding, accept=accept)


def shown(value: Any) -> str:
    """`repr(value)`, also for values whose own fails."""
    return str(_encoding.safe_repr(value))
