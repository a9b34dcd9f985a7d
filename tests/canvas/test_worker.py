"""How a worker takes messages of batch tasks: together, and never losing one; a worker for each."""

from __future__ import annotations

import signal

import pytest
from celery import chord

from tests.canvas import fake_runtime
from tests.canvas.cases import failure, get
from tests.canvas.conftest import PICKLE, Side, World, events_of, held_by, kinds
from tests.plugins.stack import ended_by_pid, until

LONG_LINGER = {"CANVAS_LINGER": "60"}


def prefetch(world: World, name: str) -> int:
    stats = world.app.control.inspect([f"{name}@canvas"], timeout=1).stats() or {}
    return int(stats.get(f"{name}@canvas", {}).get("prefetch_count", -1))


@pytest.mark.parametrize("world", [LONG_LINGER], indirect=True)
def test_messages_that_wait_together_are_accepted_together(world: World, ours: Side) -> None:
    world.worker("w1", "prefork")
    idle = prefetch(world, "w1")

    results = [ours.summ.delay(str(number)) for number in range(130)]

    # Two full micro-batches go; the rest lingers, and may be as many as fits into one.
    until(lambda: world.redis.hlen(fake_runtime.SEEN) == 128, "two micro-batches are accepted")
    until(lambda: held_by(world, "w1") == 2, "the rest is held")
    assert prefetch(world, "w1") > idle
    assert [get(result) for result in results[:128]] == [f"R({number})" for number in range(128)]

    rest = [ours.summ.delay("more") for _ in range(62)]
    assert [get(result) for result in [*results[128:], *rest]]
    until(lambda: prefetch(world, "w1") == idle, "prefetch is back")


@pytest.mark.parametrize("world", [LONG_LINGER], indirect=True)
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_messages_held_at_a_warm_shutdown_are_not_lost(world: World, ours: Side, pool: str) -> None:
    first = world.worker("w1", pool)
    results = [ours.summ.delay(str(number)) for number in range(20)]
    until(lambda: held_by(world, "w1") == 20, "the worker holds them")

    ended_by_pid(first, signal.SIGTERM)
    assert world.redis.hlen(fake_runtime.SEEN) == 0
    world.env["CANVAS_LINGER"] = "0.01"
    world.worker("w2", pool)

    assert [get(result) for result in results] == [f"R({number})" for number in range(20)]


@pytest.mark.parametrize("world", [LONG_LINGER], indirect=True)
def test_revoked_and_expired_messages_leave_a_micro_batch(world: World, ours: Side) -> None:
    world.worker("w1", "prefork")
    revoked, expired = ours.summ.delay("r"), ours.summ.apply_async(("e",), expires=1)
    header = chord(
        [ours.summ.s("a").set(task_id=f"c-{ours.key}"), ours.summ.s("b")], ours.join.s()
    )()
    until(lambda: held_by(world, "w1") == 4, "the worker holds them")

    ids = [revoked.id, f"c-{ours.key}"]
    until(lambda: bool(world.app.control.revoke(ids, reply=True, timeout=2)), "they are revoked")
    until(lambda: revoked.state == "REVOKED", "the revoke is known")
    ours.settle_seconds(1.1)
    good = [ours.summ.delay("x") for _ in range(60)]

    assert get(good[0]) == "R(x)"
    assert failure(expired)[0] == failure(revoked)[0] == "TaskRevokedError"
    assert failure(header, follow_parents=False)[0] == "ChordError"


def test_a_message_that_kills_its_process_takes_no_other_with_it(world: World, ours: Side) -> None:
    world.env["CANVAS_LINGER"] = "0.3"
    world.worker("w1", "prefork")

    with events_of(world) as seen:
        good = [ours.summ.delay(str(number)) for number in range(10)]
        poison = ours.kills.delay("x")
        good += [ours.summ.delay(str(number)) for number in range(10, 20)]

        assert [get(result) for result in good] == [f"R({number})" for number in range(20)]
        kind, text = failure(poison)
        until(lambda: all("succeeded" in kinds(seen, one.id) for one in good), "the events came")

    assert kind == "KilledItsWorker"
    assert "killed its worker process 4 times" in text
    # Handled twice, together and alone, they tell of it once: monitors count starts.
    assert [kinds(seen, one.id).count("started") for one in good] == [1] * 20


def test_a_bulk_call_that_kills_its_process_takes_no_other_with_it(
    world: World, ours: Side
) -> None:
    world.worker("w1", "prefork")

    many = ours.kills.delay_many(["a", "b", "x", "c"], link=ours.note())

    good = [many.results[number] for number in (0, 1, 3)]
    assert [get(result) for result in good] == ["R(a)", "R(b)", "R(c)"]
    assert failure(many.results[2])[0] == "KilledItsWorker"
    assert ours.notes(3) == sorted(["R(a)", "R(b)", "R(c)"])


@pytest.mark.parametrize("pool", ["threads", "gevent"])
def test_a_function_that_ends_its_thread_takes_no_other_with_it(
    world: World, ours: Side, pool: str
) -> None:
    world.env["CANVAS_LINGER"] = "0.3"
    world.worker("w1", pool)

    good = [ours.summ.delay("a")]
    ours.exits.delay("x")
    good.append(ours.summ.delay("b"))

    assert [get(result) for result in good] == ["R(a)", "R(b)"]


def test_calls_wait_in_the_queue_while_the_buffers_are_down(world: World, ours: Side) -> None:
    world.worker("w1", "prefork")
    world.redis.set("canvas:down", 1)
    results = [ours.summ.delay(str(number)) for number in range(30)]
    late = ours.summ.apply_async(("late",), countdown=0.1)
    many = ours.summ.delay_many(["p", "q"])
    until(lambda: "does not answer" in world.log("w1"), "the worker says so")

    world.redis.delete("canvas:down")

    assert [get(result) for result in results] == [f"R({number})" for number in range(30)]
    assert get(late) == "R(late)"
    assert get(many) == ["R(p)", "R(q)"]
    assert "Traceback" not in world.log("w1")


@pytest.mark.parametrize(
    ("world", "pool"),
    [
        ({"CANVAS_CONF": '{"task_soft_time_limit": 1}'}, "prefork"),
        ({"CANVAS_CONF": '{"task_time_limit": 1}'}, "prefork"),
        ({"CANVAS_CONF": '{"task_time_limit": 1}'}, "gevent"),
        ({"CANVAS_CONF": '{"task_default_rate_limit": "1/h"}'}, "prefork"),
    ],
    indirect=["world"],
    ids=["soft time limit", "time limit", "time limit, gevent", "rate limit"],
)
def test_limits_of_all_tasks_are_not_for_many_at_once(world: World, ours: Side, pool: str) -> None:
    world.worker("w1", pool)

    many = [ours.unhurried_build.delay_many("abcdef") for _ in range(2)]

    assert [many.get(timeout=15) for many in many] == [[f"R({text})" for text in "abcdef"]] * 2


@pytest.mark.parametrize("world", [PICKLE], indirect=True)
def test_arguments_keep_their_types_on_the_ordinary_way(world: World, ours: Side) -> None:
    world.worker("w1", "prefork")

    sent = [
        ours.kinds.apply_async((value,), serializer="pickle", **options)
        for value in ((1, 2), {1})
        for options in ({"countdown": 0.1}, {"time_limit": 60})
    ]

    assert [get(result) for result in sent] == ["tuple", "tuple", "set", "set"]


def test_messages_of_the_old_protocol(world: World, ours: Side) -> None:
    world.worker("w1", "prefork")
    world.app.conf.task_protocol = 1

    assert get(ours.summ.delay("a")) == "R(a)"
    # It knows no index within a group.
    joined = get(chord([ours.summ.s("a"), ours.summ.s("b")], ours.join.s())())
    assert sorted(joined.split("|")) == ["R(a)", "R(b)"]


@pytest.mark.parametrize("world", [{"CANVAS_EXPIRES": "1"}], indirect=True)
def test_a_chord_waits_longer_than_results_live(world: World, ours: Side) -> None:
    world.worker("w1", "prefork")
    with ours.held() as accepted:
        result = chord([ours.summ.s("a"), ours.summ.s("b")], ours.note())()
        first = result.parent.results[0]
        accepted(first)
        ours.settle_seconds(2.1)

    assert ours.notes(1) == ["['R(a)', 'R(b)']"]


def test_a_worker_that_dies_after_the_append_adds_nothing_twice(world: World, ours: Side) -> None:
    world.env["CANVAS_VISIBILITY"] = "1"
    first = world.worker("w1", "solo")
    result = ours.dies_after_append.delay("a")
    until(lambda: world.redis.hlen(fake_runtime.SEEN) == 1, "the request is there")
    first.wait(20)

    world.worker("w2", "solo")

    assert get(result) == "R(a)"
    ours.settle()
    until(lambda: not world.redis.hlen("unacked"), "the message came back and is done")
    assert world.redis.hlen(fake_runtime.SEEN) == 1
