"""The answer cache by itself: whose answer is found, and for how long."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs
from redis.exceptions import ConnectionError as RedisAway

from lowtide import answers
from lowtide.envelope import Envelope
from lowtide.lane import Lane
from lowtide.request import Request
from lowtide.resume import Resumed
from lowtide.runtime import Runtime
from tests.pipeline.conftest import requests

BODY = {"choices": [{"message": {"content": "It is low."}}]}


@pytest.fixture
def asked() -> Request:
    (request,) = requests(1, user=requests(1)[0].task_id)
    return structs.replace(request, cache=3600.0)


def keep(rt: Runtime, request: Request, state: Any = "SUCCESS") -> None:
    resumed = [Resumed(request.custom_id, state)]
    answers.keep(rt, {request.custom_id: request}, resumed, {request.custom_id: BODY})


def test_what_was_kept_is_found(rt: Runtime, asked: Request) -> None:
    assert answers.find(rt, asked) is None

    keep(rt, asked)

    assert answers.find(rt, structs.replace(asked, custom_id="o.0.0", task="other")) == BODY


def test_only_the_very_same_is_found(rt: Runtime, asked: Request) -> None:
    keep(rt, asked)
    lane = asked.lane

    others: list[dict[str, Any]] = [
        {"lane": Lane("eu", lane.endpoint, lane.model)},
        {"lane": Lane(lane.account, "/v1/responses", lane.model)},
        {"body": asked.body.replace(b"deep", b"deeper")},
        {"body": asked.body[:-1] + b',"response_format":{"type":"json_object"}}'},
        {"cache": None},
    ]
    assert [answers.find(rt, structs.replace(asked, **other)) for other in others] == [None] * 5


def test_an_answer_is_too_old_for_who_wants_a_newer_one(
    rt: Runtime, asked: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(rt, asked)
    now = rt.clock.now()

    monkeypatch.setattr(type(rt.clock), "now", lambda _self: now + 60)

    assert answers.find(rt, structs.replace(asked, cache=61.0)) == BODY
    assert answers.find(rt, structs.replace(asked, cache=59.0)) is None


def test_redis_forgets_it_in_time(rt: Runtime, asked: Request) -> None:
    keep(rt, structs.replace(asked, cache=7.0))

    (key,) = [key for key in rt.redis.scan_iter("*:answer:*") if rt.redis.pttl(key) <= 7000]
    assert rt.redis.pttl(key) > 0


@pytest.mark.parametrize("state", ["FAILURE", "RETRY", "REVOKED", "AGAIN", "IGNORED"])
def test_what_was_of_no_use_is_not_kept(rt: Runtime, asked: Request, state: str) -> None:
    keep(rt, asked, state)

    assert answers.find(rt, asked) is None


@pytest.mark.parametrize("invalid", [[], [{"message": "no JSON"}]])
def test_an_answer_that_is_asked_for_again_is_not_kept(
    rt: Runtime, asked: Request, invalid: list[Any]
) -> None:
    envelope = Envelope(body=b"", accepted_at=0.0, invalid=invalid).pack()
    following = structs.replace(asked, envelope=envelope)
    resumed = [Resumed(asked.custom_id, "CONTINUED", following)]

    answers.keep(rt, {asked.custom_id: asked}, resumed, {asked.custom_id: BODY})

    assert answers.find(rt, asked) == (None if invalid else BODY)


def test_a_redis_that_is_away_is_no_failure(
    rt: Runtime, asked: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away:
        def __getattr__(self, _name: str) -> Any:
            raise RedisAway("away")

    monkeypatch.setattr(type(rt), "redis", Away())

    assert answers.find(rt, asked) is None
    keep(rt, asked)
