"""The envelope: what is needed to finish a task later, on any replica, as Celery would have.

It keeps the task message's own body, byte for byte, so that arguments of any type that the
serializer knows come back as they were, and those headers that the result, the canvas, a retry
or the user's code may ask for. What can be derived is left out. The answers that a generator got
so far ride along, because it goes on by being run again from its start.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

import msgspec
from celery import Celery
from celery.app.task import Context

from lowtide import errors
from lowtide.carried import headers_of
from lowtide.celery_seam import JSON, dump, is_plain, load, parse
from lowtide.errors import EnvelopeError, LowtideError
from lowtide.lane import Lane
from lowtide.request import unpack as unpack_request

VERSION = 1

Outcome: TypeAlias = tuple[str, dict[str, Any]] | LowtideError
"""How a request ended: (endpoint, response body) as the provider answered, or the error."""

_NO_LANE = Lane("", "", "")


class Body(NamedTuple):
    """A task message's body: (args, kwargs, {callbacks, errbacks, chain, chord}), serialized."""

    data: bytes
    content_type: str
    content_encoding: str

    @classmethod
    def of(cls, args: Any, kwargs: Any, embed: dict[str, Any], serializer: str) -> Body:
        """The body of a message that was never sent, or is no longer at hand."""
        content_type, content_encoding, data = dump((args, kwargs, embed), serializer)
        return cls(data, content_type, content_encoding)

    def load(self, app: Celery) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """(args, kwargs, embed); content types that the app does not accept are refused."""
        args, kwargs, embed = load(app, self.data, self.content_type, self.content_encoding)
        return args, kwargs, embed or {}


class Envelope(msgspec.Struct, array_like=True, kw_only=True):
    """A task between its phases. Fields are only ever added, at the end and with a default.

    Attributes:
        body: The message's body.
        accepted_at: When the call was accepted first, epoch seconds.
        content: Content type and encoding of `body`; None for JSON in UTF-8.
        history: How the generator's requests before this one ended, oldest first; see `record`.
        asked: How many requests were made before this one beyond those of `history`: answers that
            did not validate were asked for again.
        invalid: What was wrong with the answers that this request asks for again, oldest first.
        final: Whether the answer is the task's result, as for a plain function.
        output: "module:qualname" of the output model, when the call brought its own.
        many: Whether the result is a list, as an embeddings call for several inputs gives.
        headers: The message's custom headers, where msgpack has all their types.
        typed_headers: They in JSON as kombu writes it, where it has not.
    """

    body: bytes
    accepted_at: float
    content: tuple[str, str] | None = None
    history: list[Any] = []
    final: bool = True
    output: str | None = None
    many: bool = False
    retries: int = 0
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int = 0
    delivery: tuple[str | None, str | None, int | None] | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    shadow: str | None = None
    origin: str | None = None
    timelimit: list[float | None] | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    headers: dict[str, Any] | None = None
    asked: int = 0
    invalid: list[dict[str, Any]] = []
    typed_headers: bytes | None = None

    @property
    def custom_headers(self) -> dict[str, Any] | None:
        """The message's custom headers."""
        return self.headers if self.typed_headers is None else parse(self.typed_headers)

    @property
    def step(self) -> int:
        """Number of the request within the run of the task, from 0."""
        return len(self.history) + self.asked

    @classmethod
    def seal(cls, context: Context, body: Body) -> Envelope:
        """The envelope of the task that runs with `context`."""
        known = context.__dict__
        delivery = context.delivery_info or {}
        content = (body.content_type, body.content_encoding)
        limits = known.get("timelimit")
        headers, typed_headers = _stored(headers_of(context) or None)
        return cls(
            body=body.data,
            accepted_at=time.time(),
            content=None if content == JSON else content,
            retries=context.retries or 0,
            root_id=_unless(context.root_id, context.id),
            parent_id=context.parent_id,
            group=context.group,
            group_index=context.group_index,
            ignore_result=known.get("ignore_result"),
            replaced_task_nesting=context.replaced_task_nesting or 0,
            delivery=_some(
                (
                    delivery.get("exchange") or None,
                    delivery.get("routing_key"),
                    delivery.get("priority"),
                )
            ),
            reply_to=context.reply_to or None,
            correlation_id=_unless(context.correlation_id, context.id),
            shadow=context.shadow,
            origin=known.get("origin"),
            timelimit=list(limits) if limits and any(limits) else None,
            stamped_headers=list(context.stamped_headers) if context.stamped_headers else None,
            stamps=context.stamps or None,
            headers=headers,
            typed_headers=typed_headers,
        )

    def pack(self) -> bytes:
        """The envelope as bytes: a version byte and msgpack."""
        return bytes((VERSION,)) + _encoder.encode(self)

    def load(self, app: Celery, task_id: str, task: str, hostname: str) -> dict[str, Any]:
        """The request that Celery's tracer takes, args and kwargs included.

        `expires` is not part of it: a call that was accepted in time does not expire because
        the provider takes its time, nor does its retry.
        """
        content_type, content_encoding = self.content or JSON
        args, kwargs, embed = Body(self.body, content_type, content_encoding).load(app)
        exchange, routing_key, priority = self.delivery or (None, None, None)
        request: dict[str, Any] = {
            "id": task_id,
            "task": task,
            "args": args,
            "kwargs": kwargs,
            "hostname": hostname,
            "is_eager": False,
            "retries": self.retries,
            "root_id": self.root_id or task_id,
            "parent_id": self.parent_id,
            "group": self.group,
            "group_index": self.group_index,
            "replaced_task_nesting": self.replaced_task_nesting,
            "delivery_info": {
                "exchange": exchange or "",
                "routing_key": routing_key,
                "priority": priority,
                "redelivered": False,
            },
            "reply_to": self.reply_to,
            "correlation_id": self.correlation_id or task_id,
            "shadow": self.shadow,
            "origin": self.origin,
            "timelimit": self.timelimit or [None, None],
            "stamped_headers": self.stamped_headers,
            "stamps": self.stamps or {},
        }
        if self.ignore_result is not None:
            request["ignore_result"] = self.ignore_result
        # Flat, as they were in the message: Celery collects them into `request.headers` itself.
        request.update(self.custom_headers or {})
        request.update(embed)
        return request

    def followed_by(self, outcome: Outcome) -> list[Any]:
        """The history that a generator's next request has, once this one ended in `outcome`."""
        return [*self.history, record(outcome)]


def unpack(data: bytes) -> Envelope:
    """The envelope that `Envelope.pack` made.

    Raises:
        EnvelopeError: It is damaged (code "damaged"), or of a later release (code "version").
    """
    version = data[0] if data else None
    if version != VERSION:
        raise EnvelopeError(
            f"The envelope has version {version}, this release reads version {VERSION}; "
            "deliver it with the release of lowtide that stored it.",
            {"code": "version"},
        )
    try:
        return _decoder.decode(memoryview(data)[1:])
    except msgspec.MsgspecError as error:
        raise EnvelopeError(f"The envelope is damaged: {error}.", {"code": "damaged"}) from None


class Earlier(NamedTuple):
    """What earlier tries of a generator were answered.

    Attributes:
        outcomes: How a request ended, by its number in the history and its body. Who asks
            something else at that place has no answer yet.
        steps: How many requests of one try were answered at most.
    """

    outcomes: Mapping[tuple[int, bytes], Outcome]
    steps: int


def earlier(blobs: Iterable[bytes]) -> Earlier:
    """What is known of the stored requests `blobs` of a task, those asked first coming first.

    Raises:
        LowtideError: A blob or its envelope cannot be read.
    """
    bodies: dict[int, bytes] = {}
    outcomes: dict[tuple[int, bytes], Outcome] = {}
    steps = 0
    for blob in blobs:
        request = unpack_request("", _NO_LANE, blob)
        envelope = unpack(request.envelope)
        for number, entry in enumerate(envelope.history):
            # One without was answered from the cache.
            if number in bodies:
                outcomes[number, bodies[number]] = recall(entry)
        steps = max(steps, len(envelope.history))
        if not envelope.invalid:
            bodies[len(envelope.history)] = request.body
    return Earlier(outcomes, steps)


def record(outcome: Outcome) -> list[Any]:
    """An outcome as it is kept in an envelope's history."""
    if isinstance(outcome, LowtideError):
        return [1, type(outcome).__name__, outcome.message, outcome.details]
    return [0, *outcome]


def recall(entry: Sequence[Any]) -> Outcome:
    """The outcome that `record` kept."""
    if entry[0] == 0:
        return str(entry[1]), entry[2]
    kind = getattr(errors, entry[1], LowtideError)
    error: LowtideError = kind(entry[2], entry[3])
    return error


def _stored(headers: dict[str, Any] | None) -> tuple[dict[str, Any] | None, bytes | None]:
    """Custom headers as they are, or else in JSON, for the two fields of an envelope."""
    if headers is None:
        return None, None
    with suppress(OverflowError):
        _encoder.encode(headers)
        if is_plain(headers):
            return headers, None
    return None, dump(headers, "json")[2]


def _unless(value: str | None, derived: str) -> str | None:
    return None if value == derived else value


def _some(values: tuple[Any, Any, Any]) -> tuple[Any, Any, Any] | None:
    return values if any(value is not None for value in values) else None


_encoder = msgspec.msgpack.Encoder(enc_hook=str)
_decoder = msgspec.msgpack.Decoder(Envelope)
