"""Deleting what ended long ago, and leaving what is referred to."""

from __future__ import annotations

import pytest
from msgspec import structs

from lowtide.clock import SimulatedClock
from lowtide.destinations import KEPT
from lowtide.ledger import BatchState, Ledger, NewMessage, Purged, RequestState
from lowtide.ledger import purge as purge_module
from tests.ledger.support import advance, new_batch, new_request, record, settle


def delivered(ledger: Ledger, batch_id: str, *custom_ids: str) -> None:
    record(ledger, batch_id, custom_ids)
    advance(ledger, batch_id, BatchState.FETCHED)
    settle(ledger, batch_id, list(custom_ids))
    ledger.close_if_done(batch_id)


def left(ledger: Ledger) -> set[str]:
    return {batch.id for batch in ledger.batches()}


def test_old_final_batches_go_with_their_requests(
    ledger: Ledger, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge_module, "_BATCHES_AT_ONCE", 10)
    for n in range(45):
        delivered(ledger, f"b{n}", f"t{n}.0.0")
    record(ledger, "empty", ["t1.0.0"])
    record(ledger, "open", ["open.0.0"])
    clock.advance(10)
    record(ledger, "late", ["t2.0.0"])

    assert ledger.purge(clock.now()) == Purged(batches=46, requests=45, kept=0)
    assert ledger.purge(clock.now()) == Purged(0, 0, 0)

    assert left(ledger) == {"open", "late"}
    assert ledger.task("t7") == []
    assert ledger.ids("open") == {"open.0.0"}


def test_a_large_batch_goes_in_short_transactions_between_which_others_write(
    ledger: Ledger, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge_module, "_ROWS_AT_ONCE", 4)
    delivered(ledger, "b1", *(f"t{n}.0.0" for n in range(10)))
    clock.advance(10)
    seen: list[int] = []

    def others_write(_seconds: float) -> None:
        assert record(ledger, f"new{len(seen)}", [f"new{len(seen)}.0.0"]).new
        seen.append(len(ledger.task_ids([f"t{n}.0.0" for n in range(10)])))

    monkeypatch.setattr(clock, "sleep", others_write)

    assert ledger.purge(clock.now()).requests == 10
    assert seen == [6, 2, 0]


@pytest.mark.parametrize("destination", ["crm", KEPT])
def test_what_the_outbox_names_stays_until_it_does_not(
    ledger: Ledger, clock: SimulatedClock, destination: str
) -> None:
    for name in ("b1", "b2"):
        delivered(ledger, name, f"{name}.0.0")
    ledger.post([NewMessage(destination, "b1.0.0", b"told", "b1")])
    clock.advance(10)

    assert ledger.purge(clock.now()) == Purged(1, 1, kept=1)
    assert left(ledger) == {"b1"}
    assert ledger.task("b1") != []

    ledger.drop_messages(destination)
    assert ledger.purge(clock.now()) == Purged(1, 1, 0)


def test_a_line_that_others_wait_for_stays(ledger: Ledger, clock: SimulatedClock) -> None:
    same = [structs.replace(new_request(f"s{n}.0.0"), share_key="k") for n in (1, 2)]
    ledger.record(new_batch("b1"), same)
    advance(ledger, "b1", BatchState.FETCHED)
    settle(ledger, "b1", ["s1.0.0"], state=RequestState.REVOKED)
    ledger.requeue("b1", None, reason="sent again")
    ledger.close_if_done("b1")
    clock.advance(10)

    assert ledger.purge(clock.now()) == Purged(0, 0, kept=1)
    assert ledger.task("s1") != []
