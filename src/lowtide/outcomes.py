"""What fetch hands to deliver: settled outcomes, packed into slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import zstandard

from lowtide import errors, failpoints

if TYPE_CHECKING:
    from lowtide.slices import Slices

_LEVEL = 1
_MAX_SLICE_BYTES = 8_000_000


class Answered(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """The provider answered.

    Attributes:
        body: The response body, JSON as it came: `results.read_body` reads it.
        request_id: The provider's id of the request, for its support.
    """

    custom_id: str
    status_code: int
    body: bytes
    request_id: str | None


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The request failed for good.

    Attributes:
        error: Name of the error's class in `lowtide.errors`.
    """

    custom_id: str
    error: str
    message: str
    details: dict[str, Any]

    def exception(self) -> errors.LowtideError:
        """The error to raise into the task."""
        kind: type[errors.LowtideError] = getattr(errors, self.error)
        return kind(self.message, self.details)


def _size(outcome: Answered | Failed) -> int:
    return len(outcome.body) if isinstance(outcome, Answered) else len(outcome.message) + 200


class SliceWriter:
    """Packs outcomes into slices of bounded size and puts them into Redis.

    Args:
        most: Outcomes in one slice at most.
        ttl: Seconds that a slice lives; one that is gone is fetched again.
    """

    def __init__(self, slices: Slices, batch_id: str, *, most: int, ttl: float) -> None:
        self._slices = slices
        self._batch_id = batch_id
        self._most = most
        self._ttl = ttl
        self._pending: list[Answered | Failed] = []
        self._bytes = 0
        self._packer = Packer()
        self.count = 0

    def add(self, outcome: Answered | Failed) -> None:
        """Adds one outcome; a full slice is written."""
        self._pending.append(outcome)
        self._bytes += _size(outcome)
        if len(self._pending) >= self._most or self._bytes >= _MAX_SLICE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what is pending, if anything."""
        if not self._pending:
            return
        self._slices.put(self._batch_id, self.count, self._packer.pack(self._pending), self._ttl)
        failpoints.reach("fetch.sliced")
        self.count += 1
        self._pending = []
        self._bytes = 0


class Packer:
    """Makes bytes of outcomes; keeps its buffers from one slice to the next."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._plain = bytearray()

    def pack(self, outcomes: Sequence[Answered | Failed]) -> bytes:
        """Outcomes as compressed bytes."""
        _encoder.encode_into(outcomes, self._plain)
        return self._compressor.compress(self._plain)


def unpack(data: bytes) -> list[Answered | Failed]:
    """The outcomes that a `Packer` got."""
    return _decoder.decode(zstandard.ZstdDecompressor().decompress(data))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Answered | Failed])
