"""Failed attempts are remembered with the move that sends their requests again."""

from __future__ import annotations

from lowtide.clock import SimulatedClock
from lowtide.ledger import Attempt, BatchState, Ledger
from tests.ledger.support import advance, record, settle

IDS = [f"t{n}.0.0" for n in range(3)]


def failed(batch_id: str, code: str = "server_error", message: str = "Sorry.") -> Attempt:
    return Attempt(5.0, batch_id, f"batch_{batch_id}", 500, code, message)


def moved(ledger: Ledger, old: str, new: str, failures: dict[str, Attempt]) -> None:
    advance(ledger, old, BatchState.FETCHED)
    ledger.requeue(old, list(failures), reason="again", into=new, failed=failures)


def test_attempts_of_all_batches_are_listed_in_their_order(ledger: Ledger) -> None:
    record(ledger, "b1", IDS)
    moved(ledger, "b1", "b2", {name: failed("b1") for name in IDS[:2]})
    moved(ledger, "b2", "b3", {IDS[0]: failed("b2", "expired")})

    assert ledger.attempts(IDS) == {
        IDS[0]: [failed("b1"), failed("b2", "expired")],
        IDS[1]: [failed("b1")],
    }


def test_moving_again_remembers_nothing_twice(ledger: Ledger) -> None:
    record(ledger, "b1", IDS)
    moved(ledger, "b1", "b2", {IDS[0]: failed("b1")})
    ledger.requeue("b1", IDS[:1], reason="again", into="b2", failed={IDS[0]: failed("b1")})

    assert ledger.attempts(IDS) == {IDS[0]: [failed("b1")]}


def test_any_text_of_a_provider_is_kept_short(ledger: Ledger) -> None:
    record(ledger, "b1", IDS)
    moved(ledger, "b1", "b2", {IDS[0]: failed("b1", "a\0b", "\ud83d" + "x" * 5_000)})

    [attempt] = ledger.attempts(IDS)[IDS[0]]
    assert attempt.code == "ab"
    assert attempt.message is not None
    assert attempt.message.startswith("?x")
    assert len(attempt.message) == 300


def test_a_purge_deletes_them(ledger: Ledger, clock: SimulatedClock) -> None:
    record(ledger, "b1", IDS)
    moved(ledger, "b1", "b2", {name: failed("b1") for name in IDS})
    advance(ledger, "b2", BatchState.FETCHED)
    settle(ledger, "b2", IDS)
    ledger.close_if_done("b2")
    clock.advance(10)

    ledger.purge(clock.now())

    assert ledger.attempts(IDS) == {}
