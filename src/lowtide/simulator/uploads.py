"""Receiving a multipart upload straight to disk, in constant memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.message import Message
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from lowtide.simulator.errors import ApiError, missing

_MAX_FIELD = 65_536
_MAX_FIELDS = 100


class Upload:
    """The parts of one multipart body: small fields in memory, the file on disk.

    Attributes:
        fields: the form's text fields.
        filename: name of the ``file`` part, None when there was none.
        size: bytes of the file.
    """

    def __init__(self, target: Path, max_bytes: int) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size = 0
        self._target = target
        self._max = max_bytes
        self._sink: BinaryIO | None = None
        self._name = ""
        self._in_file = False
        self._buffer = bytearray()
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._disposition = ""

    async def receive(self, boundary: bytes, chunks: AsyncIterator[bytes]) -> None:
        """Read the whole body.

        Raises:
            ApiError: 400 when the body is not multipart, the file is too large, or absent.
        """
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_data,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._part_end,
            },
        )
        try:
            with self._target.open("wb") as self._sink:
                async for chunk in chunks:
                    parser.write(chunk)
                parser.finalize()
        except MultipartParseError as error:
            raise ApiError(400, f"Could not parse multipart form: {error}") from error
        if self.filename is None:
            raise missing("file")

    def _part_begin(self) -> None:
        self._disposition = ""
        self._buffer.clear()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_data(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value.decode("utf-8", "replace")
        self._header_name.clear()
        self._header_value.clear()

    def _headers_finished(self) -> None:
        message = Message()
        message["Content-Disposition"] = self._disposition.replace("\r", "").replace("\n", "")
        self._name = str(message.get_param("name", "", "content-disposition"))
        filename = message.get_filename()
        self._in_file = self._name == "file"
        if self._in_file:
            self.filename = filename or "upload"

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._in_file:
            if len(self._buffer) + end - start > _MAX_FIELD or len(self.fields) > _MAX_FIELDS:
                raise ApiError(400, "A form field is too large.", param=self._name)
            self._buffer += data[start:end]
            return
        self.size += end - start
        if self.size > self._max:
            raise ApiError(400, "File is too large.", param="file")
        if self._sink is not None:
            self._sink.write(memoryview(data)[start:end])

    def _part_end(self) -> None:
        if not self._in_file:
            self.fields[self._name] = self._buffer.decode("utf-8", "replace")


def boundary_of(content_type: str) -> bytes:
    """The boundary of a multipart content type.

    Raises:
        ApiError: 400 when it is another type, or has none.
    """
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        raise ApiError(
            400, "Invalid content type: this endpoint expects multipart/form-data.", param="file"
        )
    return boundary.encode("latin-1", "replace")
