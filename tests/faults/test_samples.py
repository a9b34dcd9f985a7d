"""What earlier releases stored is read by this one: a sample of each is kept here for good."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from lowtide import envelope, outcomes
from lowtide.errors import EnvelopeError, RequestExpired
from lowtide.lane import Lane
from lowtide.request import unpack

SAMPLES = sorted((Path(__file__).parent / "samples").glob("*.json"))
LANE = Lane("default", "/v1/chat/completions", "gpt-5-mini")


@pytest.fixture(params=SAMPLES, ids=lambda path: path.stem)
def sample(request: pytest.FixtureRequest) -> dict[str, bytes]:
    stored = json.loads(request.param.read_text())
    return {name: base64.b64decode(stored[name]) for name in ("request", "envelope", "slice")}


def test_there_are_samples() -> None:
    assert SAMPLES


def test_a_request(sample: dict[str, bytes]) -> None:
    request = unpack("task.2.2", LANE, sample["request"])

    assert (request.task_id, request.task, request.tokens) == ("task", "shop.review", 12)
    assert request.body == b'{"model":"gpt-5-mini","messages":[]}'
    assert request.deadline == 1700003600.0
    assert request.envelope == sample["envelope"]


def test_an_envelope(sample: dict[str, bytes]) -> None:
    app = Celery("reader", set_as_current=False)
    stored = envelope.unpack(sample["envelope"])
    request = stored.load(app, "task", "shop.review", "w1")

    assert (request["args"], request["kwargs"]) == (["Grüße"], {"max_words": 5})
    assert (request["retries"], request["root_id"], request["parent_id"]) == (2, "root", "parent")
    assert (request["group"], request["group_index"], request["x"]) == ("g", 3, "y")
    first, second = map(envelope.recall, stored.history)
    assert first == ("/v1/chat/completions", {"a": 1})
    assert isinstance(second, RequestExpired)
    assert second.code == "expired"


def test_a_slice(sample: dict[str, bytes]) -> None:
    assert outcomes.unpack(sample["slice"]) == [
        outcomes.Answered("task.2.2", 200, b'{"id":"x"}', "req-1"),
        outcomes.Failed("other.0.0", "RequestRejected", "no", {"code": "bad"}),
    ]


def test_of_a_later_release_it_says_so(sample: dict[str, Any]) -> None:
    with pytest.raises(EnvelopeError) as caught:
        envelope.unpack(bytes([99]) + sample["envelope"][1:])
    assert caught.value.code == "version"
