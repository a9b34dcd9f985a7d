"""Downloads: a file streamed to disk in constant memory, and checked that it is whole."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx2
import openai
import orjson

from lowtide.errors import AccountPaused, ProviderError, ProviderUnavailable
from lowtide.providers.failures import shown, translated

_TRIES = 3
_TIMEOUT = httpx2.Timeout(120.0, connect=10.0)
# What the SDK lets through when a connection ends in the middle of a body.
_CUT = (httpx2.HTTPError, httpx2.StreamError, ssl.SSLError)


@dataclass(frozen=True, slots=True)
class Download:
    """One of the provider's files.

    Attributes:
        client: The SDK's client.
        account: Name of the account, for messages.
        file_id: The provider's id.
    """

    client: openai.OpenAI
    account: str
    file_id: str

    def to(self, path: Path) -> int:
        """Streams the file to `path`, again from the start when it breaks off.

        Returns:
            Its size in bytes.

        Raises:
            AccountPaused: The account cannot be used.
            ProviderUnavailable: The file is not there (yet), or broke off each time; `path` is
                gone then.
        """
        try:
            return self._whole(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _whole(self, path: Path) -> int:
        declared = self._declared_size()
        reason = ""
        for _ in range(_TRIES):
            try:
                size = self._stream(path)
            except _CutOff as cut:
                reason = str(cut)
                continue
            # Lines that are missing would be sent, and paid, again: so a short file is no file.
            if size >= declared:
                return size
            reason = f"{size:,} of {declared:,} bytes came"
        raise ProviderUnavailable(
            f"Account {self.account}: file {self.file_id} broke off {_TRIES} times ({reason}); "
            "trying again later.",
            {"account": self.account, "code": "truncated_download"},
        )

    def _declared_size(self) -> int:
        """The size that the file's own record gives; 0 when it gives none."""
        try:
            with translated(self.account, f"reading file {self.file_id}"):
                response = self.client.get(
                    f"/files/{quote(self.file_id, safe='')}", cast_to=httpx2.Response
                )
            record = orjson.loads(response.content)
        except (AccountPaused, ProviderUnavailable):
            raise  # unchecked, a short file would have its missing lines sent, and paid, again
        except (ProviderError, orjson.JSONDecodeError):
            return 0
        size = record.get("bytes") if isinstance(record, dict) else None
        return size if isinstance(size, int) else 0

    def _stream(self, path: Path) -> int:
        """One try; gives the bytes written."""
        content = self.client.files.with_streaming_response.content
        doing = f"downloading file {self.file_id}"
        with (
            translated(self.account, doing, refused=ProviderUnavailable),
            content(self.file_id, timeout=_TIMEOUT) as response,
            path.open("wb") as file,
        ):
            size = 0
            try:
                for chunk in response.iter_bytes():
                    size += file.write(chunk)
            except _CUT as error:
                raise _CutOff(f"{type(error).__name__}: {shown(error)}") from None
            return size


class _CutOff(Exception):
    """The body ended before its end."""
