"""A deployment with a past, and a browser's view of its page."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from celery import Celery
from starlette.testclient import TestClient

from lowtide import BatchTask, runtime
from lowtide.clock import SimulatedClock
from lowtide.ledger import Ledger
from tests.web.history import past
from worker.web.app import make_app

SECRET = "whsec_bG93dGlkZS1sb3d0aWRlLWxvd3RpZGU="


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> dict[str, object]:
    """Overridden by tests that need others."""
    return {"redis_url": redis_url, "home": tmp_path, "max_wait": 3600}


@pytest.fixture
def rt(
    settings: dict[str, object], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> runtime.Runtime:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-key")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", SECRET)
    app = Celery(
        f"app-{uuid.uuid4().hex}", broker="memory://", backend=redis_url, set_as_current=False
    )
    app.conf.lowtide = settings

    # Made now, as otherwise a task of this name that another test's module shares goes first.
    @app.task(base=BatchTask, model="gpt-5-mini", name="tasks.summarize", shared=False, lazy=False)
    def summarize(text: str, max_words: int = 60) -> str:
        if text == "boom":
            raise ValueError("this text cannot be")
        return f"Summarise in {max_words} words: {text}"

    @app.task(base=BatchTask, model="gpt-5-mini", name="tasks.prompt", shared=False, lazy=False)
    def prompt(text: str) -> str:
        return text

    app.finalize()
    return runtime.of(app)


@pytest.fixture(scope="session")
def written_history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with some days of batches, made once: it takes thousands of transactions."""
    file = tmp_path_factory.mktemp("history") / "ledger.db"
    now = time.time()
    clock = SimulatedClock(now - 6 * 86_400)
    ledger = Ledger(f"sqlite:///{file}", clock)
    ledger.create()
    past(ledger, clock, now)
    ledger.close()
    return file


@pytest.fixture
def history(rt: runtime.Runtime, tmp_path: Path, written_history: Path) -> Ledger:
    """Some days of batches in the ledger."""
    assert rt.settings.ledger_url == f"sqlite:///{tmp_path / 'ledger.db'}"
    with (
        closing(sqlite3.connect(written_history)) as written,
        closing(sqlite3.connect(tmp_path / "ledger.db")) as own,
    ):
        written.backup(own)
    return rt.ledger


@pytest.fixture
def browser_like() -> Callable[[runtime.Runtime], TestClient]:
    def make(rt: runtime.Runtime) -> TestClient:
        return TestClient(
            make_app(rt), base_url="http://127.0.0.1:8080", client=("127.0.0.1", 50_000)
        )

    return make


@pytest.fixture
def page(rt: runtime.Runtime, browser_like: Callable[..., TestClient]) -> Iterator[TestClient]:
    with browser_like(rt) as client:
        yield client


def proof(client: TestClient, path: str = "/lanes") -> str:
    """The hidden field of the page's forms."""
    found = re.search(r'name="proof" value="([0-9a-f]+)"', client.get(path).text)
    assert found, "the page has no form"
    return found[1]


class EndpointApi:
    """The part of the provider's API that keeps webhook endpoints."""

    def __init__(self) -> None:
        self.asked: dict[str, object] = {}
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                api.asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                known = self.path == "/v1/webhook_endpoints"
                made = {
                    "id": "we_1",
                    "object": "webhook_endpoint",
                    "created_at": 1,
                    "signing_secret": "whsec_new",
                    **api.asked,
                }
                body = json.dumps(made if known else {"error": {"message": "no such path"}})
                self.send_response(200 if known else 404)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def endpoint_api() -> Iterator[EndpointApi]:
    api = EndpointApi()
    yield api
    api.server.shutdown()
    api.server.server_close()


@pytest.fixture
def poor_service(endpoint_api: EndpointApi) -> str:
    """A service of the same shape that has no such part."""
    return endpoint_api.url.replace("/v1", "/other")
