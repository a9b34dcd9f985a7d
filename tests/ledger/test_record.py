"""Recording a sealed buffer: all of it or nothing, and once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lowtide.clock import SimulatedClock
from lowtide.lane import Lane
from lowtide.ledger import BatchState, Ledger, NewRequest, Recorded, RequestState
from tests.ledger.support import LANE, advance, new_batch, new_request, record, settle


def test_a_batch_is_recorded_with_its_requests(ledger: Ledger, clock: SimulatedClock) -> None:
    recorded = record(ledger, "b1", ["t1.0.0", "t2.0.0"])

    assert recorded == Recorded(added=2, refused=(), new=True)
    batch = ledger.batch("b1")
    assert batch is not None
    assert (batch.state, batch.requests, batch.tokens, batch.bytes) == ("RECORDED", 2, 20, 1000)
    assert (batch.to_lane(), batch.lane, batch.fence) == (LANE, LANE.key, 0)
    assert (batch.sealed_at, batch.recorded_at, batch.next_at) == (1.0, clock.now(), None)
    [request] = ledger.task("t2")
    assert (request.custom_id, request.batch_id, request.state) == ("t2.0.0", "b1", "RECORDED")
    assert (request.attempt, request.version, request.blob) == (1, 1, b"t2.0.0")


def test_one_row_with_a_nul_character_does_not_keep_its_batch_out(ledger: Ledger) -> None:
    odd = NewRequest("o\0.0.0", "o\0", "tasks\0.odd", b"\0blob", 10, tenant="ac\0me")
    lane = Lane("default", "/v1/responses", "gpt\0")

    recorded = ledger.record(new_batch(lane=lane), [new_request("t1.0.0"), odd])

    assert recorded.added == 2
    [row] = ledger.task("o")
    assert (row.custom_id, row.task, row.tenant) == ("o.0.0", "tasks.odd", "acme")
    assert row.blob == b"\0blob"


def test_lines_gives_every_request_in_chunks(ledger: Ledger) -> None:
    ids = [f"t{n}.0.0" for n in range(25)]
    record(ledger, "b1", ids)
    record(ledger, "b2", ["other.0.0"])

    chunks = list(ledger.lines("b1", chunk=10))

    assert [len(chunk) for chunk in chunks] == [10, 10, 5]
    assert sorted(line for chunk in chunks for line in chunk) == sorted(
        (i, i.encode()) for i in ids
    )


@pytest.mark.parametrize("count", [0, 10])
def test_lines_ends_when_the_last_chunk_is_full_or_there_is_none(
    ledger: Ledger, count: int
) -> None:
    record(ledger, "b1", [f"t{n}.0.0" for n in range(count)])

    assert sum(map(len, ledger.lines("b1", chunk=5))) == count


def test_recording_again_changes_nothing(ledger: Ledger) -> None:
    record(ledger, "b1", ["t1.0.0"])

    again = record(ledger, "b1", ["t1.0.0", "t2.0.0"])

    assert again == Recorded(added=0, refused=(), new=False)
    assert ledger.ids("b1") == {"t1.0.0"}


@pytest.mark.parametrize("done", [False, True])
def test_a_request_that_another_batch_has_or_had_is_refused(ledger: Ledger, done: bool) -> None:
    record(ledger, "b1", ["t1.0.0"])
    if done:
        settle(ledger, "b1", ["t1.0.0"])

    recorded = record(ledger, "b2", ["t2.0.0", "t1.0.0"])

    assert recorded == Recorded(added=1, refused=("t1.0.0",), new=True)
    assert ledger.ids("b2") == {"t2.0.0"}
    batch = ledger.batch("b2")
    assert batch is not None
    assert (batch.requests, batch.tokens) == (1, 10)


def test_a_line_that_comes_twice_is_one_request(ledger: Ledger) -> None:
    recorded = record(ledger, "b1", ["t1.0.0", "t1.0.0"])

    assert recorded == Recorded(added=1, refused=(), new=True)


def test_a_batch_of_which_all_is_refused_is_cancelled(ledger: Ledger) -> None:
    record(ledger, "b1", ["t1.0.0"])

    record(ledger, "b2", ["t1.0.0"])

    batch = ledger.batch("b2")
    assert batch is not None
    assert batch.state is BatchState.CANCELLED
    assert ledger.lease("b2", "w1", 60) is None


def test_nothing_is_recorded_when_the_lines_break_off(ledger: Ledger) -> None:
    def lines() -> Iterator[NewRequest]:
        for n in range(2500):
            yield new_request(f"t{n}.0.0")
        raise ConnectionError("Redis is gone")

    with pytest.raises(ConnectionError, match="Redis is gone"):
        ledger.record(new_batch(), lines())

    assert ledger.batch("b1") is None
    assert ledger.task("t1") == []
    assert record(ledger, "b1", ["t1.0.0"]).added == 1


def test_what_some_requests_of_a_batch_have_and_others_lack_is_kept(ledger: Ledger) -> None:
    def line(number: int, **has: Any) -> NewRequest:
        return NewRequest(f"t{number:04}.0.0", f"t{number:04}", "tasks.x", b"", 1, **has)

    # More than go to the database at once: first none has anything, then one has, then each.
    requests = [line(n) for n in range(400)]
    requests += [line(400, deadline=9.5), *(line(n) for n in range(401, 550))]
    requests += [line(550, tenant="a", share_key="k"), line(551, deadline=8.5, escalate_at=7.5)]

    ledger.record(new_batch(), requests)

    told = ("deadline", "escalate_at", "tenant", "share_key")
    for given in requests:
        [row] = ledger.task(given.task_id)
        assert [getattr(row, name) for name in told] == [getattr(given, name) for name in told]


def test_blobs_of_any_bytes_and_size_come_back_as_they_were(ledger: Ledger) -> None:
    blobs = {"t1.0.0": b"", "t2.0.0": bytes(range(256)), "t3.0.0": b"\0" * 3_000_000}
    requests = [NewRequest(i, i, "tasks.x", blob, 2**40) for i, blob in blobs.items()]

    ledger.record(new_batch(), requests)

    assert dict(line for chunk in ledger.lines("b1") for line in chunk) == blobs
    batch = ledger.batch("b1")
    assert batch is not None
    assert batch.tokens == 3 * 2**40


def test_several_thousand_with_some_refused(ledger: Ledger) -> None:
    record(ledger, "b1", [f"t{n}.0.0" for n in range(0, 5000, 7)])

    recorded = record(ledger, "b2", [f"t{n}.0.0" for n in range(5000)])

    assert set(recorded.refused) == {f"t{n}.0.0" for n in range(0, 5000, 7)}
    assert recorded.added == 5000 - len(recorded.refused) == ledger.undelivered("b2")


def test_a_task_shows_all_its_requests_in_order(ledger: Ledger, clock: SimulatedClock) -> None:
    record(ledger, "b1", ["t1.0.0", "t9.0.0"])
    settle(ledger, "b1", ["t1.0.0"], RequestState.CONTINUED)
    clock.advance(1)
    record(ledger, "b2", ["t1.0.1"])

    assert [(r.custom_id, r.state) for r in ledger.task("t1")] == [
        ("t1.0.0", "CONTINUED"),
        ("t1.0.1", "RECORDED"),
    ]
    assert ledger.task("unknown") == []


def test_batches_are_listed_by_state_newest_first(ledger: Ledger, clock: SimulatedClock) -> None:
    for n in range(4):
        record(ledger, f"b{n}", [f"t{n}.0.0"])
        clock.advance(1)
    advance(ledger, "b1", BatchState.SUBMITTED)

    assert [b.id for b in ledger.batches()] == ["b3", "b2", "b1", "b0"]
    assert [b.id for b in ledger.batches(limit=2)] == ["b3", "b2"]
    assert [b.id for b in ledger.batches([BatchState.SUBMITTED])] == ["b1"]
    assert ledger.batches([]) == []


def test_times_and_reason_of_a_new_batch_are_kept(ledger: Ledger) -> None:
    from dataclasses import replace

    ledger.record(replace(new_batch(), next_at=5.5, reason="by hand"), [new_request("t1.0.0")])

    batch = ledger.batch("b1")
    assert batch is not None
    assert (batch.next_at, batch.reason) == (5.5, "by hand")
