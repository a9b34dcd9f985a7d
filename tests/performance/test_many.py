"""Sending many calls listens to none of their results until somebody waits."""

from __future__ import annotations

from celery import Celery

from lowtide import BatchTask


def shop(url: str) -> Celery:
    app = Celery("shop", broker=url, backend=url, set_as_current=False)

    @app.task(name="shop.ask", base=BatchTask, model="gpt-5-mini")
    def ask(text: str) -> str:
        return text

    return app


def test_no_result_is_listened_to_before_it_is_waited_for(redis_url, redis) -> None:
    app = shop(redis_url)
    before = redis.info("commandstats").get("cmdstat_subscribe", {}).get("calls", 0)

    results = app.tasks["shop.ask"].delay_many(["a"] * 700)

    after = redis.info("commandstats").get("cmdstat_subscribe", {}).get("calls", 0)
    assert after - before <= 1
    # 500 calls to a message, at most.
    assert redis.llen("celery") == 2
    redis.delete("celery", "_kombu.binding.celery")
    results.forget()


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
