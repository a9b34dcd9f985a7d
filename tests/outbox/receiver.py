"""A receiver of webhooks, on a port of its own, that answers as a test wants."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai


@dataclass
class Receiver:
    """Takes what is posted.

    Attributes:
        secret: What messages are to be signed with.
        statuses: What the next posts are answered with; 204 when it is empty.
        headers: Of each answer.
        accepted: webhook-id → body of those answered with 2xx.
        tries: webhook-id → how often it was posted.
        forged: How many were not signed with the secret.
    """

    secret: str
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    accepted: dict[str, dict[str, Any]] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    forged: int = 0

    def __post_init__(self) -> None:
        lock = threading.Lock()
        checker = openai.OpenAI(api_key="unused", base_url="http://127.0.0.1:9")
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                with lock:
                    status = receiver._take(checker, dict(self.headers), body)
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/results"

    def _take(self, checker: openai.OpenAI, headers: dict[str, str], body: bytes) -> int:
        named = {name.lower(): value for name, value in headers.items()}
        try:
            checker.webhooks.verify_signature(body, named, secret=self.secret)
        except openai.InvalidWebhookSignatureError:
            self.forged += 1
            return 401
        self.tries[named["webhook-id"]] += 1
        status = self.statuses.pop(0) if self.statuses else 204
        if 200 <= status < 300:
            self.accepted[named["webhook-id"]] = json.loads(body)
        return status

    def of(self, task_id: str) -> dict[str, Any] | None:
        """What came about a task."""
        for body in list(self.accepted.values()):
            if body["data"]["task_id"] == task_id:
                return body
        return None

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
