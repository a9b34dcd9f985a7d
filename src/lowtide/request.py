"""A request: a call made into one line of a batch file, and into the blob that is stored."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from typing import TypeVar

import msgspec
import orjson
import zstandard
from msgspec.msgpack import Decoder

from lowtide import tokens
from lowtide.calls import CHAT, EMBEDDINGS, RESPONSES, Call, chat, embed, respond, to_call
from lowtide.codec import Codec
from lowtide.errors import EnvelopeError, RequestTooLarge
from lowtide.jsonbody import to_json
from lowtide.lane import Lane

__all__ = [
    "CHAT",
    "EMBEDDINGS",
    "MAX_CUSTOM_ID",
    "MAX_FILE_BYTES",
    "RESPONSES",
    "Call",
    "Head",
    "Request",
    "chat",
    "digest",
    "embed",
    "encode",
    "head_of",
    "lines_of",
    "pack",
    "respond",
    "to_call",
    "unpack",
]

MAX_FILE_BYTES = 200_000_000
MAX_CUSTOM_ID = 64


class Request(msgspec.Struct, frozen=True, gc=False):
    """One line of a batch file, before it is sent.

    Attributes:
        custom_id: Names the line within the provider's batch; at most 64 characters.
        task_id: Celery's id of the call that this request belongs to.
        task: Name of the Celery task.
        lane: Account, endpoint and model.
        body: The API body as JSON without line breaks, model included.
        envelope: What is needed to finish the task later; opaque here. Keep it uncompressed:
            it mostly repeats the prompt, and `pack` compresses it together with the body.
        tokens: Estimated input tokens.
        deadline: When the answer is needed, seconds since the epoch; None for "whenever".
        tenant: Who pays, for the cost report.
        share: Requests with an equal one wait for one line; see `digest`. None: a line of its own.
        cache: Seconds that its answer may be given to later calls of the same; None for never.
        max_wait: Seconds that it may wait in its buffer, where that is less than the lane allows.
            Not stored with it.
    """

    custom_id: str
    task_id: str
    task: str
    lane: Lane
    body: bytes
    envelope: bytes
    tokens: int
    deadline: float | None = None
    tenant: str | None = None
    share: str | None = None
    cache: float | None = None
    max_wait: float | None = None

    def line(self) -> bytes:
        """The line of the batch file with its line break; the body is not parsed again."""
        return _line(self.custom_id, self.lane, self.body)

    @property
    def line_size(self) -> int:
        """Bytes of `line()`."""
        fixed = len(b'{"custom_id":') + len(_method_and_url(self.lane.endpoint)) + len(b"}\n")
        return fixed + len(orjson.dumps(self.custom_id)) + len(self.body)


def _line(custom_id: str, lane: Lane, body: bytes) -> bytes:
    name = orjson.dumps(custom_id)
    return b"".join((b'{"custom_id":', name, _method_and_url(lane.endpoint), body, b"}\n"))


@lru_cache(maxsize=64)
def _method_and_url(endpoint: str) -> bytes:
    return b',"method":"POST","url":' + orjson.dumps(endpoint) + b',"body":'


def encode(call: Call, *, account: str, max_bytes: int = MAX_FILE_BYTES) -> tuple[Lane, bytes, int]:
    """The lane, the body as JSON and the estimated input tokens of a complete call.

    Equal bodies give equal bytes whatever the order of their top-level keys. Deeper keys keep
    their order, because a model writes structured output in the order of the schema.

    Raises:
        InvalidRequest: The body is not JSON; the error names where, never what.
        RequestTooLarge: The line would not fit into a batch file of `max_bytes`.
    """
    body = {"model": call.body["model"], **{k: call.body[k] for k in sorted(call.body, key=str)}}
    encoded = to_json(body)
    lane = Lane(account, call.endpoint, call.body["model"])
    size = len(encoded) + MAX_CUSTOM_ID + len(_method_and_url(call.endpoint)) + 17
    if size > max_bytes:
        raise RequestTooLarge(
            f"The request for {lane.model} is {size:,} bytes, more than the {max_bytes:,} bytes "
            "that a batch file may have; shorten or split its input.",
            {"lane": lane.key, "size": size, "limit": max_bytes},
        )
    return lane, encoded, tokens.estimate(len(encoded))


def digest(lane: Lane, body: bytes) -> str:
    """What requests that are the same have in common: account, endpoint and the whole body.

    The body names the model and holds the output's schema. How its top-level keys were ordered
    does not matter; see `encode`.
    """
    told = blake2b(digest_size=16)
    for part in (lane.account.encode(), lane.endpoint.encode(), body):
        told.update(len(part).to_bytes(8, "big"))
        told.update(part)
    return told.hexdigest()


class Head(msgspec.Struct, array_like=True, gc=False):
    """What a blob tells without being decompressed. Fields are only ever added, with a default.

    Attributes:
        task_id: As in `Request`, like all of these.
    """

    task_id: str
    task: str
    tokens: int
    deadline: float | None = None
    tenant: str | None = None
    share: str | None = None
    cache: float | None = None


_Pair = TypeVar("_Pair")
_START = struct.Struct(">BI")  # format, bytes of the head; then the head, then zstd
# Formats differ in what body and envelope are compressed with. All that ever were can be read.
_PLAIN, _KNOWN = 2, 3
_CODECS = {
    _PLAIN: Codec(),
    _KNOWN: Codec("dictionary-3.bin", "d7e1a939638145455cfc2c4e5e50c42b"),
}
# Beyond it zstandard copies its tables of the dictionary for each request, which takes as long as
# compressing it, and the dictionary makes little of it smaller.
_MOST_KNOWN = 16 * 1024


def pack(request: Request) -> bytes:
    """The request as one blob for Redis and the ledger, without custom_id and lane."""
    own_id = request.task_id == _task_part(request.custom_id)
    head = _encoder.encode(
        Head(
            "" if own_id else request.task_id,
            request.task,
            request.tokens,
            request.deadline,
            request.tenant,
            request.share,
            request.cache,
        )
    )
    content = _encoder.encode((request.body, request.envelope))
    form = _KNOWN if len(content) <= _MOST_KNOWN else _PLAIN
    packed = _CODECS[form].compress(content)
    return b"".join((_START.pack(form, len(head)), head, packed))


def head_of(custom_id: str, blob: bytes) -> Head:
    """The head of a blob that `pack` made.

    Raises:
        EnvelopeError: The blob is damaged, or of a version that this release does not know.
    """
    return _read_head(custom_id, blob, _head_end(custom_id, blob))


def lines_of(lane: Lane, rows: Iterable[tuple[str, bytes]]) -> Iterator[bytes | memoryview]:
    """The lines of the batch file for blobs that `pack` made, in pieces to be written one after
    the other: a body is as large as a prompt, and is not copied to stand in a line.

    Args:
        lane: What all of them share.
        rows: (custom_id, blob) of each line.

    Raises:
        EnvelopeError: As `unpack` does.
    """
    middle = _method_and_url(lane.endpoint)
    for custom_id, blob in rows:
        body, _ = _decompress(custom_id, blob, _head_end(custom_id, blob), _views)
        yield b'{"custom_id":%b%b' % (orjson.dumps(custom_id), middle)
        yield body
        yield b"}\n"


def unpack(custom_id: str, lane: Lane, blob: bytes) -> Request:
    """The request that `pack` made `blob` from.

    Raises:
        EnvelopeError: The blob is damaged, or of a version that this release does not know.
    """
    end = _head_end(custom_id, blob)
    head = _read_head(custom_id, blob, end)
    body, envelope = _decompress(custom_id, blob, end, _bodies)
    return Request(
        custom_id,
        head.task_id,
        head.task,
        lane,
        body,
        envelope,
        head.tokens,
        head.deadline,
        head.tenant,
        head.share,
        head.cache,
    )


def _head_end(custom_id: str, blob: bytes) -> int:
    """Where the head ends, and what is compressed begins."""
    if not blob or blob[0] not in _CODECS:
        known = " and ".join(f"{form:02x}" for form in _CODECS)
        raise EnvelopeError(
            f"Stored request {custom_id} has format {blob[:1].hex() or 'none'}, this release reads "
            f"{known}; run the release of lowtide that stored it.",
            {"custom_id": custom_id},
        )
    try:
        return _START.size + int(_START.unpack_from(blob)[1])
    except struct.error as error:
        raise _damaged(custom_id, error) from None


def _read_head(custom_id: str, blob: bytes, end: int) -> Head:
    try:
        head = _heads.decode(blob[_START.size : end])
    except msgspec.MsgspecError as error:
        raise _damaged(custom_id, error) from None
    head.task_id = head.task_id or _task_part(custom_id)
    return head


def _decompress(custom_id: str, blob: bytes, end: int, decoder: Decoder[_Pair]) -> _Pair:
    """Body and envelope."""
    try:
        return decoder.decode(_CODECS[blob[0]].decompress(memoryview(blob)[end:]))
    except (zstandard.ZstdError, msgspec.MsgspecError, ValueError) as error:
        raise _damaged(custom_id, error) from None


def _damaged(custom_id: str, error: Exception) -> EnvelopeError:
    return EnvelopeError(
        f"Stored request {custom_id} is damaged: {type(error).__name__}.",
        {"custom_id": custom_id},
    )


def _task_part(custom_id: str) -> str:
    return custom_id.rsplit(".", 2)[0]


_encoder = msgspec.msgpack.Encoder()
_heads = Decoder(Head)
_bodies = Decoder(tuple[bytes, bytes])
_views = Decoder(tuple[memoryview, memoryview])
