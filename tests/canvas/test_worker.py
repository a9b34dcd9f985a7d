"""How a worker takes messages of batch tasks: together, and never losing one."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from celery import chord, group
from kombu.utils.uuid import uuid

from tests.canvas import fake_runtime
from tests.canvas.cases import failure, get
from tests.canvas.conftest import PICKLE, Side, World
from tests.plugins.stack import ended_by_pid, until

LONG_LINGER = {"CANVAS_LINGER": "60"}


@pytest.fixture
def ours(world: World) -> Side:
    return Side(world, plain=False)


@contextmanager
def events_of(world: World) -> Iterator[list[dict[str, Any]]]:
    """Every event that is sent within the block."""
    seen: list[dict[str, Any]] = []
    stop, listening = threading.Event(), threading.Event()

    def listen() -> None:
        with world.app.connection() as connection:
            receiver = world.app.events.Receiver(connection, handlers={"*": seen.append})
            with receiver.consumer_context() as (own, _, _):
                while not stop.is_set():
                    with suppress(TimeoutError):
                        own.drain_events(timeout=0.1)
                    # It subscribes as it first waits.
                    listening.set()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    assert listening.wait(10)
    yield seen
    stop.set()
    thread.join()


def kinds(seen: list[dict[str, Any]], task_id: str) -> list[str]:
    mine = [event for event in seen if event.get("uuid") == task_id]
    mine.sort(key=lambda event: event["timestamp"])
    return [str(event["type"]).removeprefix("task-") for event in mine]


def held_by(world: World, name: str) -> int:
    """How many messages the worker has taken and not yet answered for."""
    told = world.app.control.inspect([f"{name}@canvas"], timeout=1).reserved() or {}
    return len(told.get(f"{name}@canvas", []))


def prefetch(world: World, name: str) -> int:
    stats = world.app.control.inspect([f"{name}@canvas"], timeout=1).stats() or {}
    return int(stats.get(f"{name}@canvas", {}).get("prefetch_count", -1))


def test_events_tell_each_phase_once(world: World, ours: Side) -> None:
    world.worker("w1", "prefork")
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
    world.worker("w1", "prefork")
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


def test_a_request_that_cannot_be_sent_fails_alone(world: World, ours: Side) -> None:
    world.worker("w1", "prefork")

    big, good = ours.summ.delay("x" * 1_100_000), ours.summ.delay("a")
    wrong = ours.bad_return.delay("a")

    assert failure(big)[0] == "RequestTooLarge"
    assert failure(wrong)[0] == "InvalidRequest"
    assert get(good) == "R(a)"


@pytest.mark.parametrize("name", ["limited", "slow_build"], ids=["rate limit", "soft time limit"])
def test_what_needs_care_takes_the_ordinary_way(world: World, ours: Side, name: str) -> None:
    world.worker("w1", "prefork")

    result = getattr(ours, name).delay("a")

    if name == "limited":
        assert get(result) == "R(a)"
    else:
        assert failure(result)[0] == "SoftTimeLimitExceeded"


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


def test_a_message_with_new_headers_and_an_old_body(world: World, ours: Side) -> None:
    world.worker("w1", "prefork")
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
    world.worker("w1", "prefork")
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


@pytest.mark.parametrize("world", [{"CANVAS_EXPIRES": "1"}], indirect=True)
def test_a_chord_waits_longer_than_results_live(world: World, ours: Side) -> None:
    world.worker("w1", "prefork")
    with ours.held() as accepted:
        result = chord([ours.summ.s("a"), ours.summ.s("b")], ours.note())()
        first = result.parent.results[0]
        accepted(first)
        ours.settle_seconds(2.1)

    assert ours.notes(1) == ["['R(a)', 'R(b)']"]


def test_an_answer_that_comes_twice_counts_once(world: World, ours: Side) -> None:
    world.worker("w1", "prefork")
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
    world.worker("w1", "prefork")
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
    world.worker("w1", "prefork")
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


def test_group_of_thousands(world: World, ours: Side) -> None:
    world.worker("w1", "prefork")

    assert get(group(ours.summ.s(str(n)) for n in range(1_000))()) == [
        f"R({n})" for n in range(1_000)
    ]
    assert get(ours.summ.delay_many(str(n) for n in range(1_000))) == [
        f"R({n})" for n in range(1_000)
    ]
