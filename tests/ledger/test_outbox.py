"""The outbox: written with the outcome or not at all, given to one sender, kept until accepted."""

from __future__ import annotations

import pytest

from lowtide.clock import SimulatedClock
from lowtide.ledger import Backlog, Ledger, NewMessage, Outcome, Postponed, RequestState
from tests.ledger.support import record

IDS = ["t1.0.0", "t2.0.0", "t3.0.0"]


def message(custom_id: str, destination: str = "crm", blob: bytes = b"first") -> NewMessage:
    return NewMessage(destination, custom_id, blob, "b1")


def settle(ledger: Ledger, owner: str, ids: list[str], blob: bytes = b"first") -> int:
    outcomes = [Outcome(name, RequestState.DELIVERED) for name in ids]
    return ledger.settle(owner, outcomes, (), [message(name, blob=blob) for name in ids])


def waiting(ledger: Ledger) -> list[tuple[str, int]]:
    return [(each.destination, each.waiting) for each in ledger.backlogs()]


def test_an_entry_is_there_exactly_when_the_outcome_is(ledger: Ledger) -> None:
    record(ledger, "b1", IDS)
    ledger.claim("b1", IDS[:2], "w1", 60)

    assert settle(ledger, "w1", IDS) == 2

    assert waiting(ledger) == [("crm", 2)]
    assert ledger.ids("b1") == {IDS[2]}


def test_a_late_writer_writes_no_entry(ledger: Ledger, clock: SimulatedClock) -> None:
    record(ledger, "b1", IDS)
    ledger.claim("b1", IDS, "slow", 60)
    clock.advance(61)
    ledger.claim("b1", IDS, "w2", 60)

    assert settle(ledger, "slow", IDS, b"late") == 0
    assert waiting(ledger) == []
    settle(ledger, "w2", IDS)
    assert {each.blob for each in ledger.take("crm", "s", 9, 60)} == {b"first"}


def test_what_cannot_be_written_leaves_no_outcome_either(ledger: Ledger) -> None:
    record(ledger, "b1", IDS)
    ledger.claim("b1", IDS, "w1", 60)
    outcomes = [Outcome(name, RequestState.DELIVERED) for name in IDS]
    broken = NewMessage("crm", IDS[0], None)  # type: ignore[arg-type]

    with pytest.raises(Exception, match=r"(?i)null"):
        ledger.settle("w1", outcomes, (), [broken])

    assert ledger.ids("b1") == set(IDS)


def test_each_entry_goes_to_one_sender_until_its_time_is_over(
    ledger: Ledger, clock: SimulatedClock
) -> None:
    ledger.post([message(name) for name in IDS] + [message(IDS[0], "feed")])

    first = ledger.take("crm", "s1", 2, 60)
    second = ledger.take("crm", "s2", 9, 60)

    assert len(first) == 2
    assert sorted(each.custom_id for each in first + second) == IDS
    assert ledger.take("crm", "s3", 9, 60) == []
    clock.advance(61)
    again = ledger.take("crm", "s3", 9, 60)
    assert len(again) == 3
    # The slow sender's word counts no more.
    assert ledger.sent("crm", "s1", IDS) == 0
    assert ledger.sent("crm", "s3", IDS) == 3
    assert waiting(ledger) == [("feed", 1)]


def test_what_was_not_accepted_comes_again_at_its_time(
    ledger: Ledger, clock: SimulatedClock
) -> None:
    ledger.post([message(name) for name in IDS])
    since = clock.now()
    taken = ledger.take("crm", "s1", 9, 60)
    ledger.postpone_messages("crm", "s1", [Postponed(IDS[0], since + 30, "503 " + "x" * 999)])
    ledger.give_back("crm", "s1", [IDS[1]])

    [now] = ledger.take("crm", "s2", 9, 60)
    clock.advance(30)
    [later] = ledger.take("crm", "s2", 9, 60)

    assert [each.attempts for each in taken] == [0, 0, 0]
    assert (now.custom_id, now.attempts) == (IDS[1], 0)
    assert (later.custom_id, later.attempts, later.created_at) == (IDS[0], 1, since)
    [backlog] = ledger.backlogs()
    assert backlog == Backlog("crm", 3, since, 1, backlog.error)
    assert str(backlog.error).startswith("503 x")
    assert len(str(backlog.error)) == 300


def test_posting_again_makes_it_due_and_posting_twice_does_not(
    ledger: Ledger, clock: SimulatedClock
) -> None:
    ledger.post([message(IDS[0])])
    ledger.take("crm", "s1", 9, 60)
    ledger.postpone_messages("crm", "s1", [Postponed(IDS[0], clock.now() + 600, "away")])

    ledger.post([message(IDS[0], blob=b"second")])
    assert ledger.take("crm", "s2", 9, 60) == []

    ledger.post_again([message(IDS[0], blob=b"third"), message(IDS[1])])
    taken = {each.custom_id: each for each in ledger.take("crm", "s2", 9, 60)}
    assert taken[IDS[0]].blob == b"third"
    assert taken[IDS[0]].attempts == 0
    assert set(taken) == set(IDS[:2])


def test_it_tells_when_each_destination_is_due_and_forgets_one(
    ledger: Ledger, clock: SimulatedClock
) -> None:
    assert ledger.next_messages() == {}
    ledger.post([message(IDS[0]), NewMessage("feed", IDS[0], b"x", due=clock.now() + 50)])

    assert ledger.next_messages() == {"crm": clock.now(), "feed": clock.now() + 50}
    assert ledger.take("feed", "s1", 9, 60) == []
    assert ledger.drop_messages("crm") == 1
    assert list(ledger.next_messages()) == ["feed"]
