"""A call's result is listened to once somebody asks for it."""

from __future__ import annotations

import threading

import pytest
from celery import chord, group

from tests.performance.shop import subscriptions


def test_sending_listens_to_nothing(app, redis) -> None:
    ask = app.tasks["shop.ask"]
    before = subscriptions(redis)

    kept = [ask.delay("a"), ask.apply_async(("b",), countdown=5), ask.s("c").apply_async()]

    assert subscriptions(redis) == before
    # As before for all that is not lowtide's, on the same backend.
    app.tasks["shop.plain"].delay("d")
    assert subscriptions(redis) == before + 1
    assert len(kept) == 3


def test_sending_a_chord_of_many_listens_to_nothing(app, redis) -> None:
    before = subscriptions(redis)

    whole = app.tasks["shop.ask"].delay_many("abc", chord=app.tasks["shop.plain"].s())

    assert subscriptions(redis) == before
    app.backend.mark_as_done(whole.id, "answer")
    assert whole.get(timeout=20) == "answer"


@pytest.mark.parametrize("early", [True, False])
def test_the_result_comes_whether_it_is_asked_for_before_or_after(app, redis, early) -> None:
    result = app.tasks["shop.ask"].delay("a")
    before = subscriptions(redis)
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.append(result.get(timeout=20)))

    if early:
        waiting.start()
        while subscriptions(redis) == before and waiting.is_alive():
            pass
        app.backend.mark_as_done(result.id, "answer")
    else:
        app.backend.mark_as_done(result.id, "answer")
        waiting.start()
    waiting.join(20)

    assert found == ["answer"]


def test_what_is_called_then_is_called(app) -> None:
    result = app.tasks["shop.ask"].delay("a")
    called: list[object] = []
    result.then(called.append)

    app.backend.mark_as_done(result.id, "answer")

    assert result.get(timeout=20) == "answer"
    assert called == [result]


def test_groups_and_chords_come_too(app) -> None:
    ask, plain = app.tasks["shop.ask"], app.tasks["shop.plain"]
    several = group(ask.s("a"), ask.s("b"))()
    whole = chord([ask.s("c"), ask.s("d")])(plain.s())

    for result in (*several, whole):
        app.backend.mark_as_done(result.id, "answer")

    assert several.get(timeout=20) == ["answer", "answer"]
    assert whole.get(timeout=20) == "answer"
