"""Compression of what is stored of a request, with a dictionary that comes with lowtide or without.

`dictionary-3.bin` holds what requests would else say anew each time: English sentences of the
kinds that models are given (letters, reviews, news, terms, papers, instructions, Markdown, HTML),
written for it and taken from nowhere; then bodies of every kind of call, and the end of an
envelope. It is what zstandard calls raw content.

What was written with a dictionary can be read with the very same bytes alone. So a dictionary
never changes: a better one is a file of its own beside it, for a format of its own.
"""

from __future__ import annotations

from collections import deque
from functools import cached_property
from hashlib import blake2b
from importlib import resources

import zstandard

from lowtide.errors import LowtideError

_LEVEL = 3


class Codec:
    """zstandard with one dictionary or none, for all threads and greenlets.

    Compressors are not thread-safe and dear to make. A pool hands each to one user at a time, and
    holds no more than ever worked at once: thread-locals would make one for every greenlet.

    Args:
        dictionary: Name of its file in this package; None for none.
        digest: BLAKE2b of the file's bytes, 16 bytes in hex.
    """

    def __init__(self, dictionary: str | None = None, digest: str = "") -> None:
        self._name = dictionary
        self._digest = digest
        self._compressors: deque[zstandard.ZstdCompressor] = deque()
        self._decompressors: deque[zstandard.ZstdDecompressor] = deque()

    def compress(self, data: bytes) -> bytes:
        """`data` as one frame.

        Raises:
            LowtideError: The dictionary is damaged.
        """
        try:
            compressor = self._compressors.pop()
        except IndexError:
            compressor = zstandard.ZstdCompressor(level=_LEVEL, dict_data=self._dictionary)
        try:
            return compressor.compress(data)
        finally:
            self._compressors.append(compressor)

    def decompress(self, frame: bytes | memoryview) -> bytes:
        """What `compress` made `frame` from.

        Raises:
            zstandard.ZstdError: The frame is damaged.
            LowtideError: The dictionary is damaged.
        """
        try:
            decompressor = self._decompressors.pop()
        except IndexError:
            decompressor = zstandard.ZstdDecompressor(dict_data=self._dictionary)
        try:
            return decompressor.decompress(frame)
        finally:
            self._decompressors.append(decompressor)

    @cached_property
    def _dictionary(self) -> zstandard.ZstdCompressionDict | None:
        """Shared by all compressors of the process, prepared once."""
        if self._name is None:
            return None
        data = (resources.files("lowtide") / self._name).read_bytes()
        # With other bytes texts would come out wrong, and nothing would tell.
        if blake2b(data, digest_size=16).hexdigest() != self._digest:
            raise LowtideError(
                f"{self._name} in lowtide's folder is damaged; install lowtide again."
            )
        dictionary = zstandard.ZstdCompressionDict(data, zstandard.DICT_TYPE_RAWCONTENT)
        dictionary.precompute_compress(level=_LEVEL)
        return dictionary
