"""Sending many calls listens to none of their results, and waiting for them to few."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
import time

import pytest
from celery.exceptions import ChordError
from celery.exceptions import TimeoutError as NotYet

from lowtide import many
from tests.performance.shop import calls, shop, subscriptions


def test_no_result_is_listened_to_before_it_is_waited_for(app, redis) -> None:
    before = subscriptions(redis)

    results = app.tasks["shop.ask"].delay_many(["a"] * 700)

    assert subscriptions(redis) - before <= 1
    # 500 calls to a message, at most.
    assert redis.llen("celery") == 2
    results.forget()


def test_members_are_made_when_they_are_asked_for(app) -> None:
    results = app.tasks["shop.ask"].delay_many(["a", "b"], task_ids=["one", "two"])

    assert len(results) == 2
    assert results._results is None
    assert [result.id for result in results] == ["one", "two"]
    assert pickle.loads(pickle.dumps(results)).results == results.results
    with pytest.raises(ValueError, match="1 task ids for 2 calls"):
        app.tasks["shop.ask"].delay_many(["a", "b"], task_ids=["one"])


def test_waiting_for_many_listens_to_few(app, redis) -> None:
    results = app.tasks["shop.ask"].delay_many(range(2_500))
    before = subscriptions(redis)

    ending = threading.Thread(
        target=lambda: [
            app.backend.mark_as_done(result.id, number) for number, result in enumerate(results)
        ]
    )
    ending.start()
    found = results.get(timeout=60)
    ending.join()

    assert found == list(range(2_500))
    assert subscriptions(redis) - before < 50
    assert results[7].state == "SUCCESS"
    results.forget()


def test_waiting_makes_no_member_and_they_know_what_came(app, redis) -> None:
    ids = [f"member-{number}" for number in range(30)]
    results = app.tasks["shop.ask"].delay_many(range(30), task_ids=ids)
    for number, task_id in enumerate(ids[:-1]):
        app.backend.mark_as_done(task_id, number)
    with pytest.raises(NotYet):
        results.get(timeout=0.2)
    app.backend.mark_as_failure(ids[-1], ValueError("the last"))
    with pytest.raises(ValueError, match="the last"):
        results.get(timeout=20)
    told: dict[str, int] = {}
    assert results.get(timeout=20, propagate=False, callback=told.__setitem__) is None
    assert results._results is None

    before = calls(redis, "get") + calls(redis, "mget")
    assert [result.result for result in results][:-1] == list(range(29))
    assert results[29].state == "FAILURE"
    assert {task_id: told[task_id] for task_id in ids[:-1]} == dict(
        zip(ids[:-1], range(29), strict=True)
    )
    assert calls(redis, "get") + calls(redis, "mget") == before
    assert results.get(timeout=20, propagate=False)[:29] == list(range(29))
    results.forget()


def test_none_of_no_calls_is_waited_for(app) -> None:
    assert app.tasks["shop.ask"].delay_many([]).get(timeout=5) == []


def test_results_come_as_they_end_and_a_failure_is_raised(app) -> None:
    results = app.tasks["shop.ask"].delay_many(["a", "b", "c"])

    app.backend.mark_as_done(results[1].id, "second")
    coming = results.iter_native(timeout=20)
    assert next(coming)[0] == results[1].id
    app.backend.mark_as_failure(results[2].id, ValueError("third"))
    app.backend.mark_as_done(results[0].id, "first")

    assert {task_id for task_id, _ in coming} == {results[0].id, results[2].id}
    with pytest.raises(ValueError, match="third"):
        results.get(timeout=20)
    assert results.get(timeout=20, propagate=False)[:2] == ["first", "second"]
    results.forget()


def test_waiting_ends_with_its_timeout(app) -> None:
    results = app.tasks["shop.ask"].delay_many(["a", "b"])
    app.backend.mark_as_done(results[0].id, "done")

    began = time.monotonic()
    with pytest.raises(NotYet):
        results.get(timeout=0.05)
    assert time.monotonic() - began < 0.5
    results.forget()


def test_an_app_that_did_not_get_all_ends_silently(app, redis_url) -> None:
    program = f"""
from celery.exceptions import TimeoutError
from tests.performance.shop import shop
ask = shop({redis_url!r}).tasks["shop.ask"]
ask.delay_many(range(300))
kept = ask.delay_many(range(300))
try:
    kept.get(timeout=0.1)
except TimeoutError:
    print("not yet")
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert (ran.stdout, ran.stderr) == ("not yet\n", "")


def test_all_are_listened_to_when_somebody_waits(app) -> None:
    results = app.tasks["shop.ask"].delay_many(["a", "b"])
    called: list[object] = []
    results.then(called.append)

    for result in results:
        app.backend.mark_as_done(result.id, "done")

    assert results.get(timeout=10) == ["done", "done"]
    assert called == [results]
    results.forget()


def test_results_are_read_where_the_calls_say(app) -> None:
    app.conf.lowtide = {"results": {"other": "cache+memory://"}}
    results = app.tasks["shop.ask"].delay_many(["a", "b"], result_backend="other")

    for result in results:
        result.backend.mark_as_done(result.id, "there")
    assert app.backend.get(app.backend.get_key_for_task(results[0].id)) is None

    assert results.get(timeout=10) == ["there", "there"]
    results.forget()


def test_who_waits_for_a_chord_reads_its_members_a_few_times(app, redis) -> None:
    """Celery reads every member with each message that comes."""
    members = 500
    whole = app.tasks["shop.ask"].delay_many(range(members), chord=app.tasks["shop.plain"].s())
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.append(whole.get(timeout=20)))
    before = subscriptions(redis)
    waiting.start()
    while subscriptions(redis) == before and waiting.is_alive():
        pass
    reads = calls(redis, "get")
    message = json.dumps({"task_id": whole.id, "status": "STARTED", "result": None})
    for _ in range(50):
        redis.publish(app.backend.get_key_for_task(whole.id), message)
    app.backend.mark_as_done(whole.id, "all")
    waiting.join(20)

    assert found == ["all"]
    assert calls(redis, "get") - reads < members
    whole.parent.forget()


@pytest.mark.parametrize("where", ["redis", "database"])
def test_a_chord_is_watched_where_the_backend_does_not_count(
    app, redis, redis_url, tmp_path, where
) -> None:
    other = shop(redis_url)
    if where == "database":
        other.conf.result_backend = f"db+sqlite:///{tmp_path}/results.db"

    other.tasks["shop.ask"].delay_many(["a", "b"], chord=other.tasks["shop.plain"].s())

    waiting = [json.loads(message)["headers"]["task"] for message in redis.lrange("celery", 0, -1)]
    watches = where == "database"
    assert sorted(waiting) == ["celery.chord_unlock"] * watches + ["lowtide.expand"]
    other.close()


def test_the_member_that_failed_is_told_when_its_chord_fails(app, redis, monkeypatch) -> None:
    """As Celery tells it, which reads all members then."""
    monkeypatch.setattr(many, "_LOOKING", 1e-9)
    whole = app.tasks["shop.ask"].delay_many(["a", "b"], chord=app.tasks["shop.plain"].s())
    found: list[BaseException] = []

    def wait() -> None:
        try:
            whole.get(timeout=20)
        except Exception as error:
            found.append(error)

    waiting = threading.Thread(target=wait)
    before = calls(redis, "get")
    waiting.start()
    # It has seen that the chord has not ended yet.
    while calls(redis, "get") == before and waiting.is_alive():
        pass
    app.backend.mark_as_done(whole.parent[0].id, "done")
    app.backend.mark_as_failure(whole.parent[1].id, ValueError("second"))
    app.backend.mark_as_failure(whole.id, ChordError("a dependency failed"))
    waiting.join(20)

    assert [repr(error) for error in found] == ["ValueError('second')"]
    with pytest.raises(ValueError, match="second"):
        whole.parent.maybe_throw()
    assert whole.parent.maybe_throw(propagate=False) is None
    whole.parent.forget()
