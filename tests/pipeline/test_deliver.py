"""What became of slices that nobody delivered for a while."""

from __future__ import annotations

import pytest
from msgspec import structs
from redis.exceptions import OutOfMemoryError

from lowtide import deliver as delivering
from lowtide import finishing, pipeline
from lowtide.deliver import deliver
from lowtide.errors import KilledItsWorker, LowtideError
from lowtide.fetch import fetch
from lowtide.leases import claimed
from lowtide.ledger import BatchRow, Outcome, RequestState
from lowtide.outcomes import Answered
from lowtide.request import Request
from lowtide.resume import Resumed, Resumption
from lowtide.runtime import Runtime
from lowtide.worker_request import MAX_LOSSES
from tests.pipeline.conftest import Interfering, requests
from tests.pipeline.test_fetch import rewritten, submitted
from tests.pipeline.test_submit import Killed


@pytest.fixture
def sent(rt: Runtime, monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    messages: list[tuple[object, ...]] = []
    monkeypatch.setattr(Runtime, "send", lambda _, *args: messages.append(args))
    return messages


def test_slices_that_wait_in_a_long_queue_are_not_downloaded_again(
    rt: Runtime, provider: Interfering, sent: list[tuple[object, ...]]
) -> None:
    rt.settings.slice_requests = 2
    pipeline.register(rt.app)
    batch_id = submitted(rt, requests(6))
    fetch(rt, batch_id)
    rt.slices.delete(batch_id, 1)
    sent.clear()

    after = deliver(rt, batch_id, None, "w")

    assert sent == [("deliver", batch_id, 0), ("deliver", batch_id, 2)]
    assert after is not None
    assert (after.verb, after.batch_id) == ("deliver", batch_id)
    assert after.at is not None
    assert after.at > rt.clock.now() + rt.settings.lease / 2


def test_slices_that_are_gone_are_fetched_again(
    rt: Runtime, provider: Interfering, sent: list[tuple[object, ...]]
) -> None:
    batch_id = submitted(rt, requests(3))
    fetch(rt, batch_id)
    rt.slices.clear(batch_id)
    sent.clear()

    after = deliver(rt, batch_id, None, "w")

    assert after is not None
    assert after.verb == "fetch"
    assert sent == []


def test_what_somebody_else_has_claimed_is_looked_for_once_a_lease(
    rt: Runtime, provider: Interfering, sent: list[tuple[object, ...]]
) -> None:
    (given,) = requests(1)
    batch_id = submitted(rt, [given])
    rewritten(provider, lambda lines: lines[:0])
    pipeline.register(rt.app)
    rt.app.finalize()
    due: list[tuple[object, ...]] = [("fetch", batch_id)]

    with claimed(rt, batch_id, [given.custom_id]):  # a faster service is asked just now
        for _ in range(5):
            for verb, *rest in due:
                rt.app.tasks[f"lowtide.{verb}"](*rest)
            due = [step for step in sent if step[0] in ("fetch", "deliver")]
            sent.clear()

    assert due == []
    at = rt.timers.due_at("fetch", batch_id)
    assert at is not None
    assert at > rt.clock.now() + rt.settings.lease / 2


@pytest.mark.parametrize("trouble", [OutOfMemoryError("maxmemory"), ValueError("one of them")])
def test_a_next_request_that_is_not_buffered_leaves_only_its_own_task_open(
    rt: Runtime, provider: Interfering, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    given = requests(3)
    asks, _, also_asks = (request.custom_id for request in given)
    following = {
        name: structs.replace(request, custom_id=f"{request.task_id}.0.1")
        for name, request in zip((asks, also_asks), (given[0], given[2]), strict=True)
    }

    def resume(_app: object, items: list[Resumption], *_: object, **__: object) -> list[Resumed]:
        return [
            Resumed(name, "CONTINUED", following[name])
            if name in following
            else Resumed(name, "IGNORED")
            for name in (item.custom_id for item in items)
        ]

    def accept(requests: list[Request]) -> None:
        if following[asks] in requests:
            raise trouble

    monkeypatch.setattr(finishing, "resume", resume)
    monkeypatch.setattr(rt, "accept", accept)
    batch_id = submitted(rt, given)
    fetch(rt, batch_id)

    after = deliver(rt, batch_id, 0, "w")

    kept_out = {asks} if isinstance(trouble, ValueError) else {asks, also_asks}
    assert rt.ledger.ids(batch_id) == kept_out
    assert after is not None  # they are delivered later
    assert {row.custom_id for row in rt.ledger.claim(batch_id, kept_out, "next", 60.0)} == kept_out


def test_who_kills_its_process_after_its_answer_takes_no_other_along(
    rt: Runtime, provider: Interfering, monkeypatch: pytest.MonkeyPatch
) -> None:
    rt.settings.lease = 0.05
    given = requests(4)
    killer = sorted(request.custom_id for request in given)[1]
    ends: dict[str, object] = {}

    def resume(_app: object, items: list[Resumption], *_: object, **__: object) -> list[Resumed]:
        for item in items:
            if item.custom_id == killer and not isinstance(item.outcome, LowtideError):
                raise Killed
        ends.update({item.custom_id: item.outcome for item in items})
        return [Resumed(item.custom_id, "SUCCESS") for item in items]

    monkeypatch.setattr(finishing, "resume", resume)
    batch_id = submitted(rt, given)
    losses = left = 0
    others_ended_after = None
    while rt.ledger.undelivered(batch_id):
        fetch(rt, batch_id)
        try:
            deliver(rt, batch_id, 0, "w")
        except Killed:
            losses += 1
            assert losses < 10
        left = len(rt.ledger.ids(batch_id))
        if left == 1 and others_ended_after is None:
            others_ended_after = losses
        rt.clock.sleep(rt.settings.lease * 1.5)

    assert others_ended_after == 3  # together, then alone and in order, then as the last
    assert losses == 1 + MAX_LOSSES + 1
    assert isinstance(ends[killer], KilledItsWorker)
    assert ends.keys() == {request.custom_id for request in given}


def test_only_the_last_slice_asks_the_ledger_what_is_left(
    rt: Runtime, provider: Interfering, monkeypatch: pytest.MonkeyPatch
) -> None:
    rt.settings.slice_requests = 2
    pipeline.register(rt.app)
    batch_id = submitted(rt, requests(6))
    fetch(rt, batch_id)
    asked: list[int] = []
    undelivered = rt.ledger.undelivered

    def counting(batch: str) -> int:
        asked.append(undelivered(batch))
        return asked[-1]

    def settle(rt: Runtime, batch: BatchRow, found: list[Answered], _: str) -> None:
        names = [outcome.custom_id for outcome in found]
        rt.ledger.claim(batch.id, names, "w", 60.0)
        rt.ledger.settle("w", [Outcome(name, RequestState.DELIVERED) for name in names])

    monkeypatch.setattr(rt.ledger, "undelivered", counting)
    monkeypatch.setattr(delivering, "_deliver_slice", settle)

    afters = [deliver(rt, batch_id, number, "w") for number in (2, 0, 0, 1)]

    # A message that comes twice finds no slice: it may be that of a worker that died here.
    assert asked == [2, 0]
    assert [after and after.verb for after in afters] == ["deliver", "deliver", "deliver", None]
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    assert batch.state == "DELIVERED"
