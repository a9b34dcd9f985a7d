"""A request: a call made into one line of a batch file, and into the blob that is stored."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import msgspec
import orjson
import zstandard

from lowtide import tokens
from lowtide.calls import CHAT, EMBEDDINGS, RESPONSES, Call, chat, embed, respond, to_call
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
    "Request",
    "chat",
    "digest",
    "embed",
    "encode",
    "pack",
    "respond",
    "to_call",
    "unpack",
]

MAX_FILE_BYTES = 200_000_000
MAX_CUSTOM_ID = 64


@dataclass(frozen=True, slots=True)
class Request:
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
        return b"".join(
            (
                b'{"custom_id":',
                orjson.dumps(self.custom_id),
                _method_and_url(self.lane.endpoint),
                self.body,
                b"}\n",
            )
        )

    @property
    def line_size(self) -> int:
        """Bytes of `line()`."""
        fixed = len(b'{"custom_id":') + len(_method_and_url(self.lane.endpoint)) + len(b"}\n")
        return fixed + len(orjson.dumps(self.custom_id)) + len(self.body)


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


_VERSION = b"\x01"
# Compressors are not thread-safe and dear to make. A pool hands each to one user at a time, and
# holds no more than ever worked at once: thread-locals would make one for every greenlet.
_compressors: deque[zstandard.ZstdCompressor] = deque()
_decompressors: deque[zstandard.ZstdDecompressor] = deque()
_LEVEL = 3


def pack(request: Request) -> bytes:
    """The request as one blob for Redis and the ledger, without custom_id and lane."""
    fields = _Stored(
        request.task_id,
        request.task,
        request.envelope,
        request.body,
        request.tokens,
        request.deadline,
        request.tenant,
        request.share,
        request.cache,
    )
    try:
        compressor = _compressors.pop()
    except IndexError:
        compressor = zstandard.ZstdCompressor(level=_LEVEL)
    packed = compressor.compress(_encoder.encode(fields))
    _compressors.append(compressor)
    return _VERSION + packed


def unpack(custom_id: str, lane: Lane, blob: bytes) -> Request:
    """The request that `pack` made `blob` from.

    Raises:
        EnvelopeError: The blob is damaged, or of a version that this release does not know.
    """
    if blob[:1] != _VERSION:
        raise EnvelopeError(
            f"Stored request {custom_id} has format {blob[:1].hex() or 'none'}, this release reads "
            f"{_VERSION.hex()}; run the release of lowtide that stored it.",
            {"custom_id": custom_id},
        )
    try:
        decompressor = _decompressors.pop()
    except IndexError:
        decompressor = zstandard.ZstdDecompressor()
    try:
        fields = _decoder.decode(decompressor.decompress(memoryview(blob)[1:]))
    except (zstandard.ZstdError, msgspec.MsgspecError, ValueError) as error:
        raise EnvelopeError(
            f"Stored request {custom_id} is damaged: {type(error).__name__}.",
            {"custom_id": custom_id},
        ) from None
    finally:
        _decompressors.append(decompressor)
    return Request(
        custom_id,
        fields.task_id,
        fields.task,
        lane,
        fields.body,
        fields.envelope,
        fields.tokens,
        fields.deadline,
        fields.tenant,
        fields.share,
        fields.cache,
    )


class _Stored(msgspec.Struct, array_like=True):
    """A request as its blob holds it. Fields are only ever added, at the end, with a default."""

    task_id: str
    task: str
    envelope: bytes
    body: bytes
    tokens: int
    deadline: float | None = None
    tenant: str | None = None
    share: str | None = None
    cache: float | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)
