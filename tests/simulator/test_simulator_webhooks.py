"""Webhooks as the stock client's own verification sees them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest

from lowtide.simulator import SimulatorServer, SimulatorSettings
from tests.simulator.support import chat_lines, jsonl, line


class Receiver:
    """An endpoint that keeps what it hears, and answers with ``status``."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, dict[str, str]]] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.heard.append((body, dict(self.headers)))
                self.send_response(receiver.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?a=1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.01)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def test_each_end_is_told_signed_with_the_batchs_id_alone(bench, receiver, batch_clock):
    hook = bench.server.add_webhook(receiver.url)
    bench.server.turnaround(working="1h")
    done = bench.create(chat_lines(1))
    batch_clock.advance("2h")
    failed = bench.run(jsonl([line("a"), line("a")]))
    cancelled = bench.create(chat_lines(2))
    bench.client.batches.cancel(cancelled.id)
    bench.server.settle()
    bench.server.turnaround(working="2d")
    expired = bench.create(chat_lines(2))
    batch_clock.advance("1d")
    until(lambda: len(receiver.heard) == 4)
    events = [
        bench.client.webhooks.unwrap(body, headers, secret=hook["secret"])
        for body, headers in receiver.heard
    ]
    assert {(event.type, event.data.id) for event in events} == {
        ("batch.completed", done.id),
        ("batch.failed", failed.id),
        ("batch.cancelled", cancelled.id),
        ("batch.expired", expired.id),
    }
    assert len({headers["webhook-id"] for _, headers in receiver.heard}) == 4
    assert all(event.object == "event" and event.id.startswith("evt_") for event in events)


def test_a_wrong_secret_or_a_forged_event_does_not_verify(bench, receiver):
    hook = bench.server.add_webhook(receiver.url)
    bench.run(chat_lines(1))
    until(lambda: receiver.heard)
    body, headers = receiver.heard[0]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        bench.client.webhooks.unwrap(body + b" ", headers, secret=hook["secret"])
    bench.server.add_fault("webhook_bad_signature")
    bench.run(jsonl([line("b")]))
    until(lambda: len(receiver.heard) == 2)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        bench.client.webhooks.unwrap(*receiver.heard[1], secret=hook["secret"])


def test_an_endpoint_that_fails_is_asked_again_for_72_hours(bench, receiver, batch_clock):
    bench.server.add_webhook(receiver.url)
    receiver.status = 500
    bench.run(chat_lines(1))
    until(lambda: bench.server.deliveries()[0]["attempts"] == 1)
    batch_clock.advance("6s")
    until(lambda: bench.server.deliveries()[0]["attempts"] == 2)
    assert bench.server.deliveries()[0]["next_at"] is not None
    ids = {headers["webhook-id"] for _, headers in receiver.heard}
    assert len(ids) == 1
    assert len(receiver.heard) == 2
    receiver.status = 204
    batch_clock.advance("1h")
    until(lambda: bench.server.deliveries()[0]["next_at"] is None)
    assert bench.server.deliveries()[0]["status"] == 204
    receiver.status = 500
    bench.run(jsonl([line("b")]))
    until(lambda: bench.server.deliveries()[0]["attempts"] == 1)
    batch_clock.advance("73h")
    until(lambda: bench.server.deliveries()[0]["attempts"] == 2)
    assert bench.server.deliveries()[0]["next_at"] is None


def test_duplicates_have_one_id(bench, receiver):
    bench.server.add_webhook(receiver.url)
    bench.server.add_fault("webhook_duplicate")
    bench.run(chat_lines(1))
    until(lambda: len(receiver.heard) == 2)
    assert len({headers["webhook-id"] for _, headers in receiver.heard}) == 1


def test_lost_and_late_events(bench, receiver, batch_clock):
    bench.server.add_webhook(receiver.url)
    bench.server.add_fault("webhook_lost", count=1)
    bench.run(chat_lines(1))
    assert bench.server.deliveries() == []
    bench.server.add_fault("webhook_late", seconds="5m", count=1)
    bench.run(jsonl([line("b")]))
    assert bench.server.deliveries()[0]["attempts"] == 0
    batch_clock.advance("5m")
    until(lambda: len(receiver.heard) == 1)


def test_an_endpoint_hears_what_it_asked_for_until_it_is_removed(bench, receiver):
    hook = bench.server.add_webhook(receiver.url, ["batch.failed"])
    bench.run(chat_lines(1))
    assert bench.server.deliveries() == []
    bench.run(jsonl([line("a"), line("a")]))
    until(lambda: len(receiver.heard) == 1)
    removed = bench.client._client.delete(f"{bench.server.url}/simulator/webhooks/{hook['id']}")
    assert removed.json() == {"removed": 1}
    bench.run(jsonl([line("a"), line("a")]))
    assert bench.server.deliveries() == []
    for wrong in ({"url": "ftp://x"}, {"url": receiver.url, "events": ["batch.done"]}):
        with pytest.raises(ValueError, match="Invalid webhook"):
            bench.server.add_webhook(**wrong)


def test_what_was_not_delivered_is_sent_after_a_restart(tmp_path, receiver):
    told = SimulatorSettings(
        state=tmp_path,
        webhook_url="http://127.0.0.1:9/closed",
        webhook_secret="whsec_" + "QUJD" * 8,
    )
    with SimulatorServer(told) as server, _client(server) as client:
        server.freeze()
        file = client.files.create(file=("a.jsonl", chat_lines(1)), purpose="batch")
        client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        server.settle()
        until(lambda: server.deliveries()[0]["attempts"] == 1)
        server.world.store.db.execute("UPDATE hooks SET url = ?", (receiver.url,))
    with SimulatorServer(told) as server, _client(server) as client:
        server.advance("1m")
        until(lambda: len(receiver.heard) == 1)
        event = client.webhooks.unwrap(*receiver.heard[0], secret="whsec_" + "QUJD" * 8)
        assert event.type == "batch.completed"


def _client(server: SimulatorServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key="k", max_retries=0)
