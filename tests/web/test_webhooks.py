"""Webhooks: who sent them, whether they are new, and how fast they are answered."""

from __future__ import annotations

import statistics
import time

import orjson
import pytest

from lowtide import webhooks
from lowtide.errors import LowtideError
from lowtide.simulator.hooks import sign
from tests.web.conftest import SECRET
from tests.web.history import record_batch

URL = "/webhooks/openai"


def event(batch: str = "batch_1", kind: str = "batch.completed") -> bytes:
    return orjson.dumps({"id": "evt_1", "object": "event", "type": kind, "data": {"id": batch}})


def headers(body: bytes, name: str = "wh_1", *, secret: str = SECRET, age: int = 0):
    at = int(time.time()) - age
    return {
        "webhook-id": name,
        "webhook-timestamp": str(at),
        "webhook-signature": sign(secret, name, at, body),
    }


@pytest.fixture
def submitted(rt):
    """A batch at the provider whose next poll is far away."""
    rt.ledger.create()
    record_batch(rt.ledger, "b1", at=rt.clock.now())
    lease = rt.ledger.lease("b1", "test", 60)
    rt.ledger.move(lease, "UPLOADED")
    rt.ledger.move(lease, "SUBMITTING")
    rt.ledger.move(lease, "SUBMITTED", provider_batch_id="batch_1")
    rt.ledger.release(lease)
    rt.timers.arm("poll", "b1", rt.clock.now() + 1800)


@pytest.fixture
def sent(rt, monkeypatch):
    found = []
    monkeypatch.setattr(type(rt), "send", lambda _, *args: found.append(args))
    return found


def test_the_batch_is_asked_for_at_once(page, rt, submitted, sent) -> None:
    body = event()

    answer = page.post(URL, content=body, headers=headers(body))

    assert answer.status_code == 200
    assert sent == [("poll", "b1")]
    assert rt.timers.due_at("poll", "b1") < rt.clock.now() + 1800


def test_a_copy_is_taken_and_does_nothing(page, rt, submitted, sent) -> None:
    body = event()

    answers = [page.post(URL, content=body, headers=headers(body)) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert len(sent) == 1
    assert webhooks.counts(rt) == {"taken": 1, "repeated": 2}


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (event(), {"webhook-signature": "v1,AAAA"}),
        (event(), {"webhook-signature": ""}),
        (event(), {"webhook-timestamp": "never"}),
        (event(), {"webhook-id": "another"}),
        (b"not JSON", {}),
        (b'{"data": 3}', {}),
    ],
)
def test_what_is_not_the_providers_is_refused(page, rt, submitted, sent, body, changed) -> None:
    answer = page.post(URL, content=body, headers={**headers(body), **changed})

    assert answer.status_code == 400
    assert sent == []
    assert webhooks.counts(rt) == {"refused": 1}


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_without_its_headers_it_is_refused(page, missing) -> None:
    body = event()
    given = headers(body)
    del given[missing]

    assert page.post(URL, content=body, headers=given).status_code == 400


def test_an_old_one_is_refused(page) -> None:
    body = event()

    assert page.post(URL, content=body, headers=headers(body, age=3600)).status_code == 400


@pytest.mark.parametrize(
    ("kind", "batch"), [("batch.completed", "batch_x"), ("eval.run.failed", "batch_1")]
)
def test_other_peoples_events_are_taken(page, submitted, sent, kind, batch) -> None:
    body = event(batch, kind)

    assert page.post(URL, content=body, headers=headers(body)).status_code == 200
    assert sent == []


def test_a_large_body_is_not_read(page) -> None:
    body = b"x" * (webhooks.MAX_BODY + 1)

    assert page.post(URL, content=body, headers=headers(body)).status_code == 413


def test_an_account_without_a_secret(page, rt) -> None:
    body = event()

    assert page.post(f"{URL}/nobody", content=body, headers=headers(body)).status_code == 404


def test_it_answers_within_fifty_milliseconds(page, submitted, sent) -> None:
    took = []
    for number in range(30):
        body = event()
        given = headers(body, f"wh_{number}")
        began = time.perf_counter()
        assert page.post(URL, content=body, headers=given).status_code == 200
        took.append(time.perf_counter() - began)

    assert statistics.median(took) < 0.05


def test_while_redis_is_away_the_provider_is_to_try_again(page, rt, monkeypatch) -> None:
    from redis.exceptions import ConnectionError as RedisConnectionError

    def away(*_, **__):
        raise RedisConnectionError("refused")

    monkeypatch.setattr("redis.Redis.set", away)
    body = event()

    assert page.post(URL, content=body, headers=headers(body)).status_code == 503


def test_a_provider_without_an_api_for_it_is_told_of(rt, monkeypatch, poor_service) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", poor_service)

    with pytest.raises(LowtideError, match="by hand in its dashboard"):
        webhooks.register(rt, "https://example.org/webhooks/openai")


def test_registering_gives_the_secret(rt, monkeypatch, endpoint_api) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint_api.url)

    made = webhooks.register(rt, "https://example.org/webhooks/openai")

    assert made == webhooks.Endpoint("we_1", "https://example.org/webhooks/openai", "whsec_new")
    assert endpoint_api.asked["event_types"] == list(webhooks.EVENTS)
