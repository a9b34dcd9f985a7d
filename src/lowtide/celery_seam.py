"""The few places where Celery and kombu are reached below their public, or typed, surface."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

import msgspec
from celery import Celery, current_app
from celery.app.task import Context
from kombu import serialization
from kombu.utils import encoding
from kombu.utils import json as kombu_json

_kombu: Any = serialization
_encoding: Any = encoding
_decoder = json.JSONDecoder(object_hook=kombu_json.object_hook)
JSON = ("application/json", "utf-8")
"""Content type and encoding of a body in JSON."""
# What kombu's JSON has for types that JSON has not.
_TYPED = b"__type__"


def this_app() -> Celery:
    """The current app itself, not the proxy to whichever is current later."""
    return current_app._get_current_object()  # noqa: SLF001 - Celery's own way to do it


def dump(value: Any, serializer: str) -> tuple[str, str, bytes]:
    """(content type, content encoding, data) of `value`, as kombu serializes message bodies."""
    # Half of an emoji is for kombu, which escapes it; so is a number of more than 64 bits.
    with suppress(UnicodeEncodeError, OverflowError, RecursionError):
        if serializer == "json" and _is_kombus_own() and is_plain(value):
            # With spaces, as kombu writes it: so it is what the codec's dictionary knows.
            return *JSON, msgspec.json.format(msgspec.json.encode(value), indent=0)
    content_type, content_encoding, data = _kombu.dumps(value, serializer)
    return content_type, content_encoding, data.encode() if isinstance(data, str) else bytes(data)


def load(app: Celery, data: bytes, content_type: str, content_encoding: str) -> Any:
    """What `dump` serialized.

    Raises:
        kombu.exceptions.ContentDisallowed: The app does not accept the content type. JSON, which
            can do no harm, is always read.
    """
    if (content_type, content_encoding) == JSON and _is_kombus_own():
        return parse(data)
    accept = _kombu.prepare_accept_content(app.conf.accept_content)
    return _kombu.loads(data, content_type, content_encoding, accept=accept)


def serializer_of(context: Context) -> str | None:
    """Name of the serializer that a call's message was sent with; None where it does not say."""
    content_type = (context.properties or {}).get("content_type")
    name: str | None = _kombu.registry.type_to_name.get(content_type)
    return name


def payload(message: Any) -> Any:
    """The decoded body of a message, also for those who ask it for its payload later.

    Raises:
        kombu.exceptions.DecodeError: It cannot be read.
        kombu.exceptions.ContentDisallowed: The consumer does not accept the content type.
    """
    content = (message.content_type, message.content_encoding)
    if content == JSON and JSON[0] in (message.accept or ()) and _is_kombus_own():
        body = message.body
        with suppress(ValueError, RecursionError):
            message._decoded_cache = parse(body.encode() if isinstance(body, str) else body)  # noqa: SLF001
    return message.payload


def parse(data: bytes) -> Any:
    """JSON as kombu reads it, by a faster parser where it reads the same.

    Raises:
        ValueError: It is no JSON.
    """
    if _TYPED not in data:
        # Some is JSON to Python's parser alone: NaN, 1e999, half of an emoji.
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return msgspec.json.decode(data)
    return _decoder.decode(data.decode())


def _is_kombus_own() -> bool:
    """Whether nobody has put a serializer of another kind in the place of kombu's "json"."""
    known = _kombu.registry
    reads, writes = known._decoders.get(JSON[0]), known._encoders.get("json")  # noqa: SLF001
    return reads is kombu_json.loads and writes[2] is kombu_json.dumps


def is_plain(value: Any) -> bool:
    """Whether `value` is made of JSON's own types alone."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return True
    if kind is list or kind is tuple:
        return all(map(is_plain, value))
    if kind is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    return kind is float and math.isfinite(value)


def shown(value: Any) -> str:
    """`repr(value)`, also for values whose own fails."""
    return str(_encoding.safe_repr(value))


def load_own(app: Celery, data: bytes, content_type: str, content_encoding: str) -> Any:
    """What `dump` serialized as the app serializes its results: it was never on a broker."""
    accept = _kombu.prepare_accept_content(["json", app.conf.result_serializer])
    return _kombu.loads(data, content_type, content_encoding, accept=accept)


def context_of(request: Mapping[str, Any]) -> Context:
    """What Celery's tracer makes of a call: `Context(request, called_directly=False)`.

    To find a call's own headers, a Context puts the names that it knows together anew, which takes
    longer than all else. It is asked once for each set of names.
    """
    context = Context.__new__(Context)
    context.update(request, called_directly=False)
    if context.headers is None:
        own = own_names(frozenset(request))
        context.headers = {name: request[name] for name in request if name in own} or None
    return context


@lru_cache(maxsize=1024)
def own_names(names: frozenset[str]) -> frozenset[str]:
    """Those of a call's names that are headers of its own."""
    return frozenset(Context(dict.fromkeys(names), called_directly=False).headers or ())


def is_users_exit(error: SystemExit) -> bool:
    """Whether it is user code's `sys.exit()`. The pool's own, and Celery's kinds of it, are to end
    the process.
    """
    # An app that only sends has no pool.
    from billiard.common import terminate_handler_fired

    return type(error) is SystemExit and not terminate_handler_fired()


def is_celerys(function: Any) -> bool:
    """Whether a task's tracer or `__call__` is Celery's own.

    Who puts theirs around it often gives it the same name; a worker's `__call__` is its tracer's.
    """
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename in _files()


@cache
def _files() -> frozenset[str]:
    # An app that only sends has no use for the tracer.
    from celery.app.trace import trace_task

    return frozenset(code.co_filename for code in (Context.update.__code__, trace_task.__code__))
