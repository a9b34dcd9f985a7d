"""Messages of batch tasks that are not as most are: each ends by itself, and the worker goes on."""

from __future__ import annotations

import pytest
from kombu.utils.uuid import uuid

from tests.canvas.cases import failure, get
from tests.canvas.conftest import Side, World, held_by
from tests.plugins.stack import until


@pytest.fixture
def world(shared: World) -> World:
    return shared


def test_a_request_that_cannot_be_sent_fails_alone(world: World, ours: Side) -> None:
    big, good = ours.summ.delay("x" * 1_100_000), ours.summ.delay("a")
    wrong = ours.bad_return.delay("a")

    assert failure(big)[0] == "RequestTooLarge"
    assert failure(wrong)[0] == "InvalidRequest"
    assert get(good) == "R(a)"


@pytest.mark.parametrize("name", ["limited", "slow_build"], ids=["rate limit", "soft time limit"])
def test_what_needs_care_takes_the_ordinary_way(world: World, ours: Side, name: str) -> None:
    result = getattr(ours, name).delay("a")

    if name == "limited":
        assert get(result) == "R(a)"
    else:
        assert failure(result)[0] == "SoftTimeLimitExceeded"


def test_a_message_with_new_headers_and_an_old_body(world: World, ours: Side) -> None:
    name, task_id = ours.summ.name, uuid()
    body = {"task": name, "id": task_id, "args": ["a"], "kwargs": {}}
    with world.app.producer_or_acquire() as producer:
        producer.publish(
            body,
            routing_key=world.app.conf.task_default_queue,
            headers={"task": name, "id": task_id},
            serializer="json",
            correlation_id=task_id,
        )

    assert get(world.app.AsyncResult(task_id)) == "R(a)"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [('[["a"], {}', "application/json"), ("- [a]", "application/x-yaml")],
)
def test_a_message_that_cannot_be_read_is_set_aside(
    world: World, ours: Side, body: str, content_type: str
) -> None:
    task_id = uuid()
    with world.app.producer_or_acquire() as producer:
        producer.publish(
            body,
            routing_key=world.app.conf.task_default_queue,
            headers={"task": ours.summ.name, "id": task_id},
            content_type=content_type,
            content_encoding="utf-8",
            correlation_id=task_id,
        )

    until(lambda: world.redis.llen(world.app.conf.task_default_queue) == 0, "the message is taken")
    assert get(ours.summ.delay("b")) == "R(b)"
    until(lambda: held_by(world, "w1") == 0, "its message is let go")
    assert world.app.AsyncResult(task_id).state == "PENDING"
