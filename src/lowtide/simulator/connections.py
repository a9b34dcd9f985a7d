"""Open connections by their addresses, so that a fault can cut one."""

from __future__ import annotations

import asyncio

from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

_Key = tuple[str, int, str, int]
_open: dict[_Key, asyncio.Transport] = {}


class CuttableProtocol(H11Protocol):
    """uvicorn's HTTP protocol, which notes its transport."""

    _key: _Key | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note the connection."""
        super().connection_made(transport)
        if self.client and self.server and self.server[1] is not None:
            self._key = (*self.client, self.server[0], self.server[1])
            _open[self._key] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._key:
            _open.pop(self._key, None)
        super().connection_lost(exc)


def drop(scope: Scope, *, flush: bool) -> None:
    """Cut the connection of a request.

    Args:
        scope: the request's ASGI scope.
        flush: send first what has been written (a premature end), else reset at once.

    Raises:
        ConnectionError: under another server than ours, which turns it into its own 500.
    """
    client, server = scope.get("client"), scope.get("server")
    transport = _open.get((*client, *server)) if client and server else None
    if transport is None:
        raise ConnectionError("this server cannot cut connections; run lowtide simulate")
    if flush:
        transport.close()
    else:
        transport.abort()
