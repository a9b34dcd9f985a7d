"""Sending many calls listens to none of their results, and waiting for them to few."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading

import pytest
from celery import Celery
from celery.exceptions import TimeoutError as NotYet

from lowtide import BatchTask


def shop(url: str) -> Celery:
    app = Celery("shop", broker=url, backend=url, set_as_current=False)

    @app.task(name="shop.ask", base=BatchTask, model="gpt-5-mini")
    def ask(text: str) -> str:
        return text

    return app


def subscriptions(redis) -> int:
    calls: int = redis.info("commandstats").get("cmdstat_subscribe", {}).get("calls", 0)
    return calls


def test_no_result_is_listened_to_before_it_is_waited_for(redis_url, redis) -> None:
    app = shop(redis_url)
    before = subscriptions(redis)

    results = app.tasks["shop.ask"].delay_many(["a"] * 700)

    assert subscriptions(redis) - before <= 1
    # 500 calls to a message, at most.
    assert redis.llen("celery") == 2
    redis.delete("celery", "_kombu.binding.celery")
    results.forget()


def test_members_are_made_when_they_are_asked_for(redis_url, redis) -> None:
    app = shop(redis_url)

    results = app.tasks["shop.ask"].delay_many(["a", "b"], task_ids=["one", "two"])

    assert len(results) == 2
    assert results._results is None
    assert [result.id for result in results] == ["one", "two"]
    assert pickle.loads(pickle.dumps(results)).results == results.results
    with pytest.raises(ValueError, match="1 task ids for 2 calls"):
        app.tasks["shop.ask"].delay_many(["a", "b"], task_ids=["one"])
    redis.delete("celery", "_kombu.binding.celery")


def test_waiting_for_many_listens_to_few(redis_url, redis) -> None:
    app = shop(redis_url)
    results = app.tasks["shop.ask"].delay_many(range(2_500))
    redis.delete("celery", "_kombu.binding.celery")
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


def test_results_come_as_they_end_and_a_failure_is_raised(redis_url, redis) -> None:
    app = shop(redis_url)
    results = app.tasks["shop.ask"].delay_many(["a", "b", "c"])
    redis.delete("celery", "_kombu.binding.celery")

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


def test_waiting_ends_with_its_timeout(redis_url, redis) -> None:
    app = shop(redis_url)
    results = app.tasks["shop.ask"].delay_many(["a", "b"])
    redis.delete("celery", "_kombu.binding.celery")
    app.backend.mark_as_done(results[0].id, "done")

    with pytest.raises(NotYet):
        results.get(timeout=0.05)
    results.forget()


def test_an_app_that_did_not_get_all_ends_silently(redis_url, redis) -> None:
    program = f"""
from celery.exceptions import TimeoutError
from tests.performance.test_many import shop
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
    redis.delete("celery", "_kombu.binding.celery")


def test_all_are_listened_to_when_somebody_waits(redis_url, redis) -> None:
    app = shop(redis_url)
    results = app.tasks["shop.ask"].delay_many(["a", "b"])
    redis.delete("celery", "_kombu.binding.celery")
    called: list[object] = []
    results.then(called.append)

    for result in results:
        app.backend.mark_as_done(result.id, "done")

    assert results.get(timeout=10) == ["done", "done"]
    assert called == [results]
    results.forget()
