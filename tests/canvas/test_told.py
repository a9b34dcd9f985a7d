"""What a worker tells of the calls that it takes, and what comes back to whoever waits for them."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from celery import chord, group

from tests.canvas import fake_runtime
from tests.canvas.cases import failure, get
from tests.canvas.conftest import Side, World, events_of, kinds
from tests.plugins.stack import until


@pytest.fixture
def world(shared: World) -> World:
    return shared


def test_events_tell_each_phase_once(world: World, ours: Side) -> None:
    with events_of(world) as seen:
        good, bad = ours.summ.delay("a"), ours.summ.delay("FAIL")
        retried = ours.summ_retry.delay("FLAKY")
        many = ours.summ.delay_many(["x", "y"])
        plain = Side(world, plain=True).summ.delay("a")

        results = [good, retried, plain, *many.results]
        assert [get(result) for result in results]
        failure(bad)
        until(lambda: "failed" in kinds(seen, bad.id), "the events came")
        until(lambda: all("succeeded" in kinds(seen, r.id) for r in results), "the events came")

        first = ["received", "started", "buffered"]
        assert kinds(seen, plain.id) == ["received", "started", "succeeded"]
        assert kinds(seen, good.id) == [*first, "succeeded"]
        assert kinds(seen, bad.id) == [*first, "failed"]
        assert Counter(kinds(seen, retried.id)) == Counter([*first, "retried", *first, "succeeded"])
        assert [kinds(seen, one.id) for one in many.results] == [[*first, "succeeded"]] * 2


def test_events_hide_prompts_and_answers(world: World, ours: Side) -> None:
    with events_of(world) as seen:
        result = ours.unbound.delay("SECRET", tail=" too")
        many = ours.unbound.delay_many([("SECRET",)])
        get(result), get(many)
        until(lambda: "succeeded" in kinds(seen, many.results[0].id), "the events came")

        assert not [event for event in seen if "SECRET" in str(event)]
        told = next(e for e in seen if e["type"] == "task-received" and e["uuid"] == result.id)
        assert told["args"] == "(<str: 6>)"
        assert told["kwargs"] == "{tail=<str: 4>}"
    assert "SECRET" not in (world.folder / "w1.log").read_text()


def test_an_answer_that_comes_twice_counts_once(world: World, ours: Side) -> None:
    with ours.held() as accepted:
        linked = ours.summ.apply_async(("a",), link=ours.note())
        accepted(linked)
        world.driver.again()
    assert ours.notes(1) == ["R(a)"]

    with ours.held() as accepted:
        result = chord([ours.summ.s(text) for text in "abc"], ours.note())()
        for member in result.parent.results:
            accepted(member)
        world.driver.again()

    assert get(result) == ["R(a)", "R(b)", "R(c)"]
    assert ours.notes(2) == ["R(a)", "['R(a)', 'R(b)', 'R(c)']"]
    # The worker notes them after their results are stored.
    until(lambda: world.redis.llen(fake_runtime.RESUMED) >= 8, "all are resumed")
    ended = [entry.decode().split()[1] for entry in world.redis.lrange(fake_runtime.RESUMED, 0, -1)]
    assert Counter(ended) == {"SUCCESS": 4, "SKIPPED": 4}


def test_revoked_while_its_answer_is_awaited(world: World, ours: Side) -> None:
    with ours.held() as accepted:
        alone = ours.summ.apply_async(("a",), link=ours.note())
        body = chord(
            [ours.summ.s("b").set(task_id=f"r-{ours.key}"), ours.summ.s("c")], ours.join.s()
        )()
        for result in (alone, *body.parent.results):
            accepted(result)
        assert {result.state for result in (alone, *body.parent.results)} == {"BUFFERED"}
        ids = [alone.id, f"r-{ours.key}"]
        until(lambda: bool(world.app.control.revoke(ids, reply=True, timeout=2)), "it is revoked")

    assert failure(body, follow_parents=False) == (
        "ChordError",
        f"Dependency r-{ours.key} raised TaskRevokedError('revoked')",
    )
    assert failure(alone)[0] == "TaskRevokedError"
    assert ours.left(ours.key, 0) == []


def test_a_waiting_client_is_woken_not_polling(world: World, ours: Side) -> None:
    with ours.held() as accepted:
        result = ours.summ.delay("a")
        accepted(result)
        world.redis.config_resetstat()
        got: list[Any] = []
        waiter = threading.Thread(target=lambda: got.append(get(result)))
        waiter.start()
        until(
            lambda: world.redis.pubsub_numsub(f"celery-task-meta-{result.id}")[0][1], "it listens"
        )
        ours.settle_seconds(1.0)
        asked = world.redis.info("commandstats")

    waiter.join(10)
    assert got == ["R(a)"]
    assert asked.get("cmdstat_get", {"calls": 0})["calls"] <= 2


def test_group_of_thousands(world: World, ours: Side) -> None:
    assert get(group(ours.summ.s(str(n)) for n in range(1_000))()) == [
        f"R({n})" for n in range(1_000)
    ]
    assert get(ours.summ.delay_many(str(n) for n in range(1_000))) == [
        f"R({n})" for n in range(1_000)
    ]
