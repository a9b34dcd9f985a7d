"""Tasks of every form through a real worker: plain, structured, and generators of many steps."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from celery import chain, chord

from lowtide import task_ref
from lowtide.request import head_of
from tests.canvas import fake_runtime
from tests.canvas.cases import failure, get
from tests.canvas.conftest import Side, World


@pytest.fixture
def world(shared: World) -> World:
    return shared


def asked(world: World, result: Any) -> list[str]:
    """The names of the requests that a task made, without its id."""
    names = [name.decode() for name in world.redis.hkeys(fake_runtime.SEEN)]
    return sorted(name.removeprefix(result.id) for name in names if name.startswith(result.id))


def test_plain_functions(ours: Side) -> None:
    expected: dict[str, tuple[Any, Any]] = {
        "triage": ("x", {"title": "x", "urgent": False}),
        "own_output": ("x", {"title": "x", "urgent": False}),
        "shouted": ("x", "R(X)"),
        "vectors": (["ab", "c"], [[2.0], [1.0]]),
        "responded": ("x", "R(x)"),
    }
    sent = {name: getattr(ours, name).delay(given) for name, (given, _) in expected.items()}

    assert {name: get(result) for name, result in sent.items()} == {
        name: wanted for name, (_, wanted) in expected.items()
    }


def test_generators(world: World, ours: Side) -> None:
    review, silent, caught = (
        ours.review.delay("x"),
        ours.silent.delay("x"),
        ours.catching.delay("x"),
    )
    uncaught, bad = ours.not_catching.delay("x"), ours.bad_yield.delay("x")

    assert get(review) == {
        "both": ["R(a x)", "R(b R(a x))"],
        "ticket": {"title": "x", "urgent": False},
    }
    assert asked(world, review) == [".0.0", ".0.1"]
    assert get(silent) == "quiet x"
    assert asked(world, silent) == []
    assert get(caught) == "R(caught bad x)"
    assert failure(uncaught) == ("RequestRejected", "temperature is too high")
    kind, text = failure(bad)
    assert (kind, text.partition(";")[0]) == (
        "InvalidRequest",
        "The task gave a value of type int as its request",
    )


def test_a_retried_generator_asks_only_for_what_failed(world: World, ours: Side) -> None:
    result = ours.retried_generator.delay("x")

    assert get(result) == "R(FLAKY R(one x))"
    # The second try replays the first answer: it asks for step 1 alone.
    assert asked(world, result) == [".0.0", ".0.1", ".1.1"]


@pytest.mark.parametrize("headers", [None, {"late": "1"}], ids=["together", "by itself"])
def test_a_retry_takes_only_answers_to_what_it_asks(world: World, ours: Side, headers: Any) -> None:
    result = ours.retries_with_another.apply_async(("old",), headers=headers)

    assert get(result) == ["R(same)", "R(new)"]
    # "same" was answered; "new" was not, though something else was in its place.
    assert asked(world, result) == [".0.0", ".0.1", ".0.2", ".1.1", ".1.2"]


def test_generators_stand_in_canvases(ours: Side) -> None:
    piped = chain(ours.catching.s("x"), ours.suffix.s("!"), ours.catching.s())()
    both = chord([ours.catching.s("a"), ours.summ.s("b"), ours.silent.s("c")], ours.join.s())()

    assert get(piped) == "R(caught bad R(caught bad x)!)"
    assert get(both) == "R(caught bad a)|R(b)|quiet c"


def test_generators_tell_their_hooks_and_signals_once(world: World, ours: Side) -> None:
    result = ours.review.delay("x")
    get(result)

    seen = Counter(entry.split()[0] for entry in ours.left(f"signals:{result.id}", 3))
    assert seen["success"] == 1
    assert seen["prerun"] == seen["postrun"]


def test_a_task_that_calls_itself_as_a_function_gets_that_answer_at_once(
    world: World, ours: Side
) -> None:
    alone, late = (
        ours.calls_itself.delay("!a"),
        ours.calls_itself.apply_async(("!a",), countdown=0.1),
    )

    assert get(alone) == get(late) == "R(R(a))"
    assert asked(world, alone) == asked(world, late) == [".0.0"]


def test_a_call_that_works_on_the_result(ours: Side) -> None:
    alone, late = (
        ours.works_on_result.delay("a"),
        ours.works_on_result.apply_async(("a",), countdown=0.1),
    )

    assert get(alone) == get(late) == "R(A)"


def test_headers_within_a_header_do_not_hide_who_pays(world: World, ours: Side) -> None:
    headers = {"headers": {"sentry-trace": "s1"}}
    calls = [
        ours.tells_headers.apply_async(("a",), headers=headers, tenant="acme", **options)
        for options in ({}, {"countdown": 0.1})
    ]

    assert [get(call)["headers"] for call in calls] == [headers["headers"]] * 2
    stored = world.redis.hgetall(fake_runtime.PACKED)
    assert [head_of(name.decode(), blob).tenant for name, blob in stored.items()] == ["acme"] * 2


def test_headers_of_the_user_are_what_they_were(ours: Side) -> None:
    headers = {"none": None, "large": 2**70}

    told = get(ours.tells_headers.apply_async(("a",), headers=headers))

    assert told["headers"] == headers


def test_errors_name_task_lane_and_batch(ours: Side) -> None:
    result = ours.summ.delay("FAIL")
    failure(result)

    details = result.result.details
    assert details["task"] == "summ"
    assert details["task_id"] == result.id
    assert details["lane"] == "default:/v1/chat/completions:gpt-5-mini"
    assert details["batch"] == "batch_1"


def test_calls_by_name(world: World, ours: Side) -> None:
    summ = task_ref("summ", world.app)
    unbound = task_ref("unbound", world.app, queue="canvas")

    assert get(summ.delay("a")) == "R(a)"
    assert get(unbound.apply_async(("a",), {"tail": "b"})) == "R(ab)"
    assert get(chain(summ.s("a"), unbound.s(tail="!"), unbound.si("b"))()) == "R(b)"
    assert get(chord([summ.s("a"), unbound.s("b")], ours.join.s())()) == "R(a)|R(b)"
    assert get(summ.delay_many(["a", "b"])) == ["R(a)", "R(b)"]
    assert get(unbound.delay_many(["a", "b"], chord=ours.join.s())) == "R(a)|R(b)"


def test_a_plain_task_that_many_calls_name_runs_once_for_each(world: World, ours: Side) -> None:
    many = task_ref("note", world.app).delay_many([("a", ours.key), ("b", ours.key)])

    assert get(many) == ["a", "b"]
    assert ours.notes(2) == ["a", "b"]


def test_the_state_of_a_call_that_waits(world: World, ours: Side) -> None:
    with ours.held() as accepted:
        result = ours.summ.delay("a")
        accepted(result)
        assert result.state == "BUFFERED"
        assert not result.ready()
        assert task_ref("summ", world.app).AsyncResult(result.id).state == "BUFFERED"
        assert world.app.AsyncResult(result.id).state == "PENDING"
        world.app.backend.store_result(result.id, {"done": 1}, "PROGRESS")
        assert (result.state, result.info) == ("PROGRESS", {"done": 1})
        assert not result.ready()

    assert get(result) == "R(a)"
    assert (result.state, result.info, result.ready()) == ("SUCCESS", "R(a)", True)
