"""A call that `delay_many` sends is as one that has a message of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery, signals
from pydantic import BaseModel

from lowtide import BatchTask, task_ref
from tests.canvas import fake_runtime
from tests.canvas.cases import failure, get
from tests.canvas.conftest import PICKLE, Side, World


class Mail(BaseModel):
    text: str


@pytest.fixture
def app() -> Iterator[Celery]:
    made = Celery("many", broker="memory://", backend="cache+memory://", set_as_current=False)
    fake_runtime.install(made)
    made.conf.task_routes = {"routed": {"queue": "llm"}}
    options: dict[str, dict[str, Any]] = {
        "routed": {},
        "own_queue": {"queue": "llm", "priority": 3},
        "elsewhere": {"queue": "far"},
    }
    for name, given in options.items():
        made.task(same, base=BatchTask, model="m", shared=False, name=name, **given)
    made.task(
        about, base=BatchTask, model="m", shared=False, name="about", pydantic=True, typing=True
    )
    made.finalize()
    yield made
    made.close()


@pytest.fixture
def sent() -> Iterator[list[dict[str, Any]]]:
    """Every message that is sent."""
    seen: list[dict[str, Any]] = []

    def note(**told: Any) -> None:
        seen.append(told)

    signals.before_task_publish.connect(note)
    yield seen
    signals.before_task_publish.disconnect(note)


def same(text: Any) -> Any:
    return text


def about(mail: Mail) -> str:
    return mail.text


def join(values: list[str]) -> str:
    return "|".join(values)


def queue_of(message: dict[str, Any]) -> str:
    return str(message["routing_key"])


def test_they_go_where_single_calls_go(app: Celery, sent: list[dict[str, Any]]) -> None:
    for name in ("routed", "own_queue", "elsewhere"):
        app.tasks[name].delay("a")
        app.tasks[name].delay_many(["a"])
        task_ref(name, app).delay_many(["a"])
    app.tasks["routed"].delay_many(["a"], queue="other")

    assert [queue_of(message) for message in sent] == ["llm"] * 6 + ["far"] * 3 + ["other"]
    assert [message["properties"]["priority"] for message in sent[3:6]] == [3] * 3


def test_models_are_sent_as_dicts(app: Celery, sent: list[dict[str, Any]]) -> None:
    app.tasks["about"].delay_many([Mail(text="a"), {"mail": Mail(text="b")}])

    calls = [(list(args), kwargs) for args, kwargs in sent[0]["body"][0][-1]]
    assert calls == [([{"text": "a"}], {}), ([], {"mail": {"text": "b"}})]


def test_what_the_function_does_not_take_is_refused_at_the_call(
    app: Celery, sent: list[dict[str, Any]]
) -> None:
    with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
        app.tasks["routed"].delay_many(["a", ("a", "b")])

    assert sent == []


@pytest.mark.parametrize("limit", ["time_limit", "soft_time_limit"])
def test_a_limit_that_no_call_would_have_is_refused(
    app: Celery, sent: list[dict[str, Any]], limit: str
) -> None:
    with pytest.raises(TypeError, match=f"delay_many.. of routed has no {limit}="):
        app.tasks["routed"].delay_many(["a"], **{limit: 5})

    assert sent == []


def test_always_eager(app: Celery, sent: list[dict[str, Any]]) -> None:
    app.conf.task_always_eager = True
    joined = app.task(join, name="joined", shared=False)
    task = app.tasks["routed"]

    assert task.delay_many(["a", "b"], task_ids=["1", "2"]).get() == ["R(a)", "R(b)"]
    whole = task.delay_many(["a", "b"], chord=joined.s())
    assert whole.get() == "R(a)|R(b)"
    assert whole.parent.get() == ["R(a)", "R(b)"]
    assert sent == []


def test_each_expires_that_is_taken_too_late(world: World, sent: list[dict[str, Any]]) -> None:
    ours = Side(world, plain=False)
    at = datetime.fromtimestamp(time.time() + 0.5, UTC)
    late = [ours.summ.delay_many("ab", expires=expires) for expires in (0.5, at, at.isoformat())]
    chorded = ours.summ.delay_many("ab", expires=0.5, chord=ours.join.s())
    good = ours.summ.delay_many("ab", expires=600)
    ours.settle_seconds(0.7)

    world.worker("w1", "prefork")

    assert get(good) == ["R(a)", "R(b)"]
    assert [failure(each) for many in late for each in many] == [
        ("TaskRevokedError", "expired")
    ] * 6
    assert failure(chorded, follow_parents=False)[0] == "ChordError"
    assert world.redis.hlen(fake_runtime.SEEN) == 2


@pytest.mark.parametrize("world", [PICKLE], indirect=True)
def test_arguments_are_what_their_serializer_makes_of_them(world: World) -> None:
    world.worker("w1", "prefork")
    ours = Side(world, plain=False)

    many = ours.kinds.delay_many([((1, 2),), ({1},), ([1],)], serializer="pickle")

    assert get(many) == ["tuple", "set", "list"]


def test_stamps_and_shadow_are_each_calls_own(shared: World) -> None:
    ours = Side(shared, plain=False)

    many = ours.tells_headers.delay_many("ab", stamped_headers=["who"], who="me", shadow="as")

    for told in get(many):
        assert (told["stamps"], told["stamped_headers"]) == ({"who": "me"}, ["who"])
        assert told["shadow"] == "as"


def test_results_are_children_of_the_task_that_sends(shared: World) -> None:
    ours = Side(shared, plain=False)

    result = ours.sends_many.delay(["a", "b"])

    assert get(result) == 2
    (children,) = result.children
    assert [found for _, found in result.collect(timeout=30)] == [
        2,
        ["R(a)", "R(b)"],
        "R(a)",
        "R(b)",
    ]
    assert get(children) == ["R(a)", "R(b)"]
