"""Answers from an OpenAI-compatible server, so that a local model gets a Batch API in front."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson

from lowtide.simulator.answers import Answer
from lowtide.simulator.answers.usage import Tokens
from lowtide.simulator.errors import ApiError

_TIMEOUT = 600.0
_TRIES = 4
_LONGEST_PAUSE = 20.0
_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})


class Upstream:
    """Forwards requests, each thread over a connection of its own.

    Args:
        base_url: with its version path, e.g. ``http://127.0.0.1:8000/v1``.
        key: sent as Bearer token; None sends none.

    Raises:
        ValueError: when it is no http URL.
    """

    def __init__(self, base_url: str, key: str | None) -> None:
        self._url = urlsplit(base_url.rstrip("/"))
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise ValueError(f"not an http URL: {base_url!r}")
        self._key = key
        self._local = threading.local()

    def answer(self, endpoint: str, body: Mapping[str, Any], now: float) -> Answer:
        """Ask, up to four times while the server is busy or away.

        Returns:
            Its answer; 502 when it never gave one.
        """
        del now
        path = self._url.path + endpoint.removeprefix("/v1")
        data = orjson.dumps(body)
        made = None
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(min(0.5 * 2 ** (attempt - 1), _LONGEST_PAUSE))
            made = self._ask(path, data)
            if made is not None and made.status not in _AGAIN:
                return made
        if made is not None:
            return made
        error = ApiError(502, "The upstream server gave no answer.", kind="server_error")
        return Answer(502, error.body(), Tokens(0, 0))

    def _ask(self, path: str, data: bytes) -> Answer | None:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        connection = self._connection()
        try:
            connection.request("POST", path, data, headers)
            answer = connection.getresponse()
            body = orjson.loads(answer.read())
        except (OSError, http.client.HTTPException, orjson.JSONDecodeError):
            connection.close()  # the next request opens it anew
            return None
        if not isinstance(body, dict):
            return None
        return Answer(answer.status, body, _tokens(body.get("usage")))

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            secure = self._url.scheme == "https"
            connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
            connection = connect(self._url.hostname or "", self._url.port, timeout=_TIMEOUT)
            self._local.connection = connection
        return connection


def _tokens(usage: Any) -> Tokens:
    if not isinstance(usage, dict):
        return Tokens(0, 0)
    used = usage.get("prompt_tokens", usage.get("input_tokens")) or 0
    made = usage.get("completion_tokens", usage.get("output_tokens")) or 0
    return Tokens(int(used), int(made))
