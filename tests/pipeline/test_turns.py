"""Where room is scarce, each lane, and so each tenant or task with lanes of its own, has its turn."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest
from celery.app.task import Context
from msgspec import structs

from lowtide import accept, control, judging, steps, turns
from lowtide.answer import Answer
from lowtide.calls import chat
from lowtide.envelope import Envelope, unpack
from lowtide.errors import InvalidAnswer
from lowtide.fetch import fetch
from lowtide.lane import Lane
from lowtide.request import Request
from lowtide.runtime import Runtime
from lowtide.submit import submit
from lowtide.sweep import sweep
from lowtide.task import BatchTask
from tests.pipeline.conftest import Interfering, ended, requests, sealed


def of(share: str, count: int = 2) -> list[Request]:
    """Requests in the lane of `share`."""
    given = requests(count)
    return [
        structs.replace(each, lane=dataclasses.replace(each.lane, share=share)) for each in given
    ]


def state_of(rt: Runtime, batch_id: str) -> str:
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    return str(batch.state)


def is_due(rt: Runtime, batch_id: str) -> bool:
    due = rt.timers.due_at("submit", batch_id)
    return due is not None and due <= rt.clock.now()


@pytest.fixture
def budget(rt: Runtime) -> None:
    """Room for one batch of two requests of 20 tokens, not for two."""
    rt.settings.enqueued_tokens = 60


def sent_in_turn(rt: Runtime, waiting: list[str], count: int) -> list[str]:
    """Which of the held batches are sent, one after the other, when all try each time."""
    order: list[str] = []
    while len(order) < count:
        for batch_id in waiting:
            submit(rt, batch_id)
        now = [each for each in waiting if state_of(rt, each) == "SUBMITTED"]
        assert len(now) == 1, "one fits at a time"
        order += now
        waiting = [each for each in waiting if each not in now]
        ended(rt, now[0])
        fetch(rt, now[0])
    return order


def test_one_with_many_batches_keeps_back_nobody_who_has_one(
    rt: Runtime, provider: Interfering, budget: None
) -> None:
    running = sealed(rt, of("acme"))
    submit(rt, running)
    acme = [sealed(rt, of("acme")) for _ in range(5)]
    globex = [sealed(rt, of("globex")) for _ in range(2)]
    initech = [sealed(rt, of("initech"))]
    for batch_id in (*acme, *globex, *initech):
        submit(rt, batch_id)
        assert state_of(rt, batch_id) == "HELD"
    ended(rt, running)

    order = sent_in_turn(rt, [*acme, *globex, *initech], 6)

    names = dict.fromkeys(acme, "acme") | dict.fromkeys(globex, "globex") | {initech[0]: "initech"}
    assert [names[each] for each in order] == [
        "globex",
        "initech",
        "acme",
        "globex",
        "acme",
        "acme",
    ]
    # Within a lane they go in the order in which they were sealed.
    assert [each for each in order if each in acme] == acme[:3]


def test_who_has_less_at_the_provider_is_next(rt: Runtime, provider: Interfering) -> None:
    rt.settings.enqueued_tokens = 100  # two fit
    first, second = sealed(rt, of("acme")), sealed(rt, of("acme"))
    submit(rt, first)
    submit(rt, second)
    third, late = sealed(rt, of("acme")), sealed(rt, of("globex"))
    submit(rt, third)
    submit(rt, late)
    ended(rt, first)

    submit(rt, third)
    assert state_of(rt, third) == "HELD"
    held = rt.ledger.batch(third)
    assert held is not None
    assert "are next" in str(held.reason)
    submit(rt, late)
    assert state_of(rt, late) == "SUBMITTED"


def test_the_next_one_is_looked_at_when_room_returns_and_after_each_that_is_sent(
    rt: Runtime, provider: Interfering
) -> None:
    rt.settings.enqueued_tokens = 100
    running = sealed(rt, of("acme", 4))
    submit(rt, running)
    acme, globex = [sealed(rt, of("acme")) for _ in range(2)], sealed(rt, of("globex"))
    for batch_id in (*acme, globex):
        submit(rt, batch_id)
        rt.timers.arm("submit", batch_id, rt.clock.now() + 900)

    ended(rt, running)
    assert [is_due(rt, each) for each in (*acme, globex)] == [False, False, True]

    submit(rt, globex)
    assert state_of(rt, globex) == "SUBMITTED"
    assert [is_due(rt, each) for each in acme] == [True, False]


def test_a_paused_lane_keeps_back_no_other(
    rt: Runtime, provider: Interfering, budget: None
) -> None:
    running = sealed(rt, of("acme"))
    submit(rt, running)
    given = of("globex")
    paused, waits = sealed(rt, given), sealed(rt, of("acme"))
    submit(rt, paused)
    submit(rt, waits)
    control.pause(rt, given[0].lane.key)
    ended(rt, running)

    submit(rt, waits)

    assert state_of(rt, waits) == "SUBMITTED"


def test_creations_of_an_hour_are_shared_too(rt: Runtime, provider: Interfering) -> None:
    rt.settings.creations_per_hour = 1
    running = sealed(rt, of("acme"))
    submit(rt, running)
    acme, globex = [sealed(rt, of("acme")) for _ in range(3)], sealed(rt, of("globex"))
    for batch_id in (*acme, globex):
        submit(rt, batch_id)
        assert state_of(rt, batch_id) == "HELD"

    rt.settings.creations_per_hour = 3  # as the next hour would
    for batch_id in (*acme, globex):
        submit(rt, batch_id)

    # "globex" has nothing at the provider, so "acme" had to wait for it.
    assert state_of(rt, globex) == "SUBMITTED"
    assert [state_of(rt, each) for each in acme] == ["HELD"] * 3
    assert is_due(rt, acme[0])
    submit(rt, acme[0])
    assert state_of(rt, acme[0]) == "SUBMITTED"


def test_nobody_waits_once_all_are_sent(rt: Runtime, provider: Interfering, budget: None) -> None:
    first, second = sealed(rt, of("acme")), sealed(rt, of("globex"))
    submit(rt, first)
    submit(rt, second)
    queue = turns.tokens("default", "gpt-5-mini")
    assert [turn.batch_id for turn in rt.ledger.turns(queue)] == [second]

    ended(rt, first)
    submit(rt, second)

    assert state_of(rt, second) == "SUBMITTED"
    assert rt.ledger.turns(queue) == []


def test_a_pause_of_the_whole_lane_is_for_all_its_shares(
    rt: Runtime, provider: Interfering
) -> None:
    given = of("acme")
    batch_id = sealed(rt, given)
    control.pause(rt, given[0].lane.whole.key)

    submit(rt, batch_id)
    assert state_of(rt, batch_id) == "HELD"

    control.resume(rt, given[0].lane.whole.key)
    assert is_due(rt, batch_id)


@pytest.mark.parametrize(
    ("share_by", "tenant", "share"),
    [
        ("none", "acme", ""),
        ("tenant", "acme", "acme"),
        ("tenant", "Acme & Söhne: 1", "Acme & Söhne: 1"),
        ("tenant", None, ""),
        ("task", "acme", "turns.ask"),
    ],
)
def test_lanes_are_of_whom_the_setting_says(
    rt: Runtime, share_by: Any, tenant: str | None, share: str
) -> None:
    def ask(text: str) -> str:
        return text

    rt.settings.share_by = share_by
    task = rt.app.task(base=BatchTask, name="turns.ask", shared=False)(ask)
    call = task.to_call(chat("How deep?", model="gpt-5-mini"))
    context = Context({"id": "t1", "headers": {} if tenant is None else {"lowtide_tenant": tenant}})

    made = accept.make_request(
        task, context, steps.Asks(call, ends=True), Envelope(body=b"", accepted_at=0.0)
    )

    assert made.lane.share == share
    # So is what asks for a valid answer again.
    bad = Answer(made.lane.endpoint, {"choices": [{"message": {"content": "no JSON"}}]})
    again = judging.Again(bad, InvalidAnswer("no JSON"), [])
    assert judging.next_request(task, made, unpack(made.envelope), again).lane == made.lane
    assert made.tenant == tenant
    assert Lane.parse(made.lane.key) == made.lane
    assert made.lane.whole == Lane("default", "/v1/chat/completions", "gpt-5-mini")
    assert rt.settings.thresholds(made.lane) == rt.settings.thresholds(made.lane.whole)
    # Redis' names allow neither blanks nor braces in it, and the scripts find it by its colons.
    assert not set(made.lane.key) & set(" {}")
    assert rt.buffer.append([made]).added == 1
    assert made.lane.key in {status.lane for status in rt.buffer.lanes()}


def test_settings_for_a_lane_are_for_all_its_shares(rt: Runtime) -> None:
    from lowtide.settings import LaneOverride

    lane = Lane("default", "/v1/chat/completions", "gpt-5-mini", "acme")
    rt.settings.lanes = {lane.whole.key: LaneOverride(max_requests=7)}

    assert rt.settings.thresholds(lane).max_requests == 7


def test_those_that_are_held_hide_no_other_from_the_sweep(
    rt: Runtime, provider: Interfering, budget: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, *waiting = [sealed(rt, requests(2)) for _ in range(4)]
    for batch_id in (running, *waiting):
        submit(rt, batch_id)
    with rt.ledger._db.write() as connection:  # recorded long after those that are held
        later = "UPDATE lowtide_batches SET next_at = 9 WHERE id = ?"
        connection.exec_driver_sql(later, (running,))
    monkeypatch.setattr(rt.ledger, "due", partial(rt.ledger.due, limit=2))
    rt.redis.flushdb()

    sweep(rt)

    assert rt.timers.due_at("poll", running) is not None
    assert None not in [rt.timers.due_at("submit", each) for each in waiting]


def test_the_sweep_calls_who_was_held_while_room_returned(
    rt: Runtime, provider: Interfering, budget: None
) -> None:
    first, second = sealed(rt, requests(2)), sealed(rt, of("other"))
    submit(rt, first)
    after = submit(rt, second)
    assert after is not None
    rt.timers.arm("submit", second, after.at or 0.0)
    assert state_of(rt, second) == "HELD"
    assert not is_due(rt, second)

    sweep(rt)

    assert is_due(rt, second)
