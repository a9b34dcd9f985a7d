"""What a destination is told of a task that ended: as the outbox keeps it, and as it is sent."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
import zstandard
from celery import Celery, states
from celery.app.task import Context

from lowtide.celery_seam import dump, load_own, shown
from lowtide.endings import Ending

_EVENTS = {
    states.SUCCESS: "task.succeeded",
    states.FAILURE: "task.failed",
    states.REVOKED: "task.revoked",
}
# Dear to make, and not thread-safe: each is with one user at a time.
_compressors: deque[zstandard.ZstdCompressor] = deque()
_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS


@dataclass(frozen=True, slots=True)
class Told:
    """A task that ended.

    Attributes:
        custom_id: The request that ended it: names the message, so that one that comes twice is
            known.
        task: Name of the task.
        task_id: Celery's id.
        ended_at: Epoch seconds.
        about: What else the receiver may ask for: "batch", "lane" and "tenant".
        request: What Celery's own format keeps of the call besides.
    """

    custom_id: str
    task: str
    task_id: str
    ending: Ending = field(repr=False)
    ended_at: float = 0.0
    about: Mapping[str, str | None] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def context(self) -> Context:
        """The call, as Celery's result backends take it."""
        told = {**self.request, "_children": [_Child(each) for each in self.ending.children]}
        return Context(told, id=self.task_id, task=self.task)

    def body(self) -> bytes:
        """What is sent: one JSON object, as Standard Webhooks recommend."""
        ending = self.ending
        succeeded = ending.state == states.SUCCESS
        at = datetime.fromtimestamp(self.ended_at, UTC).isoformat(timespec="milliseconds")
        message = {
            "type": _EVENTS[ending.state],
            "timestamp": at.replace("+00:00", "Z"),
            "data": {
                "task_id": self.task_id,
                "task": self.task,
                "state": ending.state,
                "result": ending.value if succeeded else None,
                "error": None if succeeded else _error(ending.value),
                "request": self.custom_id,
                **{name: self.about.get(name) for name in ("batch", "lane", "tenant")},
            },
        }
        try:
            return orjson.dumps(message, default=str, option=_OPTIONS)
        except (TypeError, orjson.JSONEncodeError):  # half an emoji, a number beyond 64 bits
            return json.dumps(message, default=str, skipkeys=True).encode()


class _Child:
    """A task that this one sent, which is told as it was stored."""

    def __init__(self, stored: Any) -> None:
        self._stored = stored

    def as_tuple(self) -> Any:
        return self._stored


def kept_of(app: Celery, context: Context) -> dict[str, Any]:
    """What Celery's own format keeps of a call besides its result."""
    kept = {"group": context.group, "parent_id": context.parent_id}
    if app.conf.find_value_for_key("extended", "result"):
        names = ("args", "kwargs", "hostname", "retries", "delivery_info")
        kept |= {name: getattr(context, name) for name in names}
    return kept


def pack(app: Celery, told: Told) -> bytes:
    """As the outbox keeps it: values as the app's results are serialized, compressed."""
    ending = told.ending
    fields = {
        "custom_id": told.custom_id,
        "task": told.task,
        "task_id": told.task_id,
        "ended_at": told.ended_at,
        "about": dict(told.about),
        "request": dict(told.request),
        "state": ending.state,
        "value": ending.value,
        "traceback": ending.traceback,
        "children": ending.children,
    }
    try:
        content_type, encoding, data = dump(fields, app.conf.result_serializer)
    except Exception:  # a result that is stored nowhere need not be serializable
        fields |= {"value": _as_json(ending.value), "request": {}, "children": []}
        content_type, encoding, data = dump(fields, "json")
    try:
        compressor = _compressors.pop()
    except IndexError:
        compressor = zstandard.ZstdCompressor(level=3)
    packed = compressor.compress(data)
    _compressors.append(compressor)
    return msgspec.msgpack.encode((content_type, encoding, packed))


def unpack(app: Celery, blob: bytes) -> Told:
    """What `pack` made bytes of."""
    content_type, encoding, packed = _decoder.decode(blob)
    data = zstandard.ZstdDecompressor().decompress(packed)
    fields = load_own(app, data, content_type, encoding)
    ending = Ending(*(fields.pop(name) for name in ("state", "value", "traceback", "children")))
    return Told(ending=ending, **fields)


def _as_json(value: Any) -> Any:
    """A value with text in place of what JSON does not know."""
    try:
        return json.loads(json.dumps(value, default=str, skipkeys=True))
    except (ValueError, RecursionError):  # it holds itself
        return shown(value)


def _error(value: Any) -> dict[str, Any]:
    """An error for receivers: its class, its words, and lowtide's details where there are."""
    args = list(value.get("exc_message") or ()) if isinstance(value, Mapping) else [value]
    details = args[1] if len(args) > 1 and isinstance(args[1], Mapping) else {}
    kind = value.get("exc_type") if isinstance(value, Mapping) else None
    return {"type": kind, "message": str(args[0]) if args else "", "details": details}


_decoder = msgspec.msgpack.Decoder(tuple[str, str, bytes])
