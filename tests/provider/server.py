"""An HTTP server that does as a test's script says: answers, cuts, silence, or a real upstream."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2


@dataclass(frozen=True)
class Reply:
    """One scripted answer.

    Attributes:
        cut: Close the connection after so many bytes of the body; -1 before anything is sent.
        length: Whether Content-Length is sent; without it the body ends with the connection.
        chunks: The body in pieces, for bodies that must not be held in memory.
        size: Length of `chunks` together.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    length: bool = True
    chunks: Callable[[], Iterable[bytes]] | None = None
    size: int = 0


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


DROP = Reply(cut=-1)


class ScriptedServer:
    """Answers each "METHOD /path" with the next reply of its script; the last one stays.

    Args:
        upstream: Base URL of a real server for what is not scripted, without "/v1".
    """

    def __init__(self, upstream: str | None = None) -> None:
        self.seen: list[Seen] = []
        self.upstream = upstream
        self._scripts: dict[str, deque[Any]] = defaultdict(deque)
        self._discarded: set[str] = set()
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                # A client that hung up is part of the tests.
                with contextlib.suppress(OSError):
                    super().handle_one_request()

            def _serve(self) -> None:
                path = self.path.partition("?")[0]
                size = int(self.headers.get("content-length") or 0)
                if f"{self.command} {path}" in outer._discarded:
                    body = b""
                    while size:
                        size -= len(self.rfile.read(min(size, 65_536)))
                else:
                    body = self.rfile.read(size) if size else _dechunked(self)
                request = Seen(self.command, self.path, dict(self.headers), body)
                outer.seen.append(request)
                outer._write(self, outer._next(f"{self.command} {path}", request))

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - names of http.server

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def on(self, what: str, *replies: Reply | Callable[[Seen], Reply]) -> None:
        self._scripts[what].extend(replies)

    def discards(self, what: str, *replies: Reply) -> None:
        """As `on`, without keeping the bodies of the requests."""
        self._discarded.add(what)
        self.on(what, *replies)

    def calls(self, what: str) -> list[Seen]:
        method, path = what.split(" ")
        return [s for s in self.seen if s.method == method and s.path.partition("?")[0] == path]

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def forward(self, seen: Seen) -> Reply:
        """What the upstream answers."""
        kept = {
            k: v
            for k, v in seen.headers.items()
            if k.lower() in ("authorization", "content-type", "accept")
        }
        answer = httpx2.request(
            seen.method, f"{self.upstream}{seen.path}", content=seen.body, headers=kept, timeout=30
        )
        return Reply(answer.status_code, answer.content)

    def _next(self, what: str, seen: Seen) -> Reply:
        script = self._scripts.get(what)
        if not script:
            return (
                self.forward(seen)
                if self.upstream
                else Reply(404, {"error": {"message": "not scripted"}})
            )
        found = script.popleft() if len(script) > 1 else script[0]
        return found(seen) if callable(found) else found

    def _write(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        if reply.cut == -1:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        handler.send_response(reply.status)
        if not any(name.lower() == "content-type" for name in reply.headers):
            handler.send_header("Content-Type", "application/json")
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        if reply.length:
            handler.send_header("Content-Length", str(reply.size or len(body)))
        handler.end_headers()
        for chunk in reply.chunks() if reply.chunks else [body[: reply.cut]]:
            handler.wfile.write(chunk)
        if reply.cut is not None or not reply.length:
            handler.wfile.flush()
            handler.close_connection = True


def _dechunked(handler: BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in (handler.headers.get("transfer-encoding") or ""):
        return b""
    body = b""
    while size := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body


def refused_url() -> str:
    """A base URL at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"
