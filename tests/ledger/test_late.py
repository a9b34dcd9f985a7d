"""Requests whose deadline is near."""

from __future__ import annotations

from msgspec import structs

from lowtide.ledger import Ledger, NewRequest, Outcome, RequestState
from tests.ledger.support import new_batch, new_request


def late(custom_id: str, at: float, task: str = "tasks.known") -> NewRequest:
    return structs.replace(new_request(custom_id, task=task), escalate_at=at)


def test_only_requests_of_the_named_tasks_are_found_the_longest_due_first(ledger: Ledger) -> None:
    others = [late(f"o{n}.0.0", float(n), "tasks.other") for n in range(5)]
    ours = [late("t1.0.0", 30.0), late("t2.0.0", 20.0), late("t3.0.0", 99.0)]
    ledger.record(new_batch(), [*others, *ours])

    assert ledger.late(50.0, 9, ["tasks.known"]) == {"b1": ["t2.0.0", "t1.0.0"]}
    assert ledger.late(50.0, 1, ["tasks.known"]) == {"b1": ["t2.0.0"]}
    assert ledger.late_tasks(25.0) == {"tasks.known", "tasks.other"}
    assert ledger.late_tasks(10.0) == {"tasks.other"}


def test_those_that_share_a_line_are_found_together(ledger: Ledger) -> None:
    same = [structs.replace(late(f"s{n}.0.0", 20.0 + n), share_key="k") for n in range(4)]
    ledger.record(new_batch(), [*same, late("t1.0.0", 21.0)])

    assert ledger.late(22.5, 1, ["tasks.known"]) == {"b1": ["s0.0.0", "s1.0.0", "s2.0.0"]}


def test_a_paid_answer_is_kept_until_its_request_has_an_outcome(ledger: Ledger) -> None:
    ledger.record(new_batch(), [new_request(f"t{n}.0.0") for n in (1, 2, 3)])
    ledger.keep_paid("b1", {"t1.0.0": b"first", "t2.0.0": b"two", "t3.0.0": b"three"})
    ledger.keep_paid("b1", {"t1.0.0": b"second"})
    assert ledger.paid(["t1.0.0", "t9.0.0"]) == {"t1.0.0": b"first"}
    assert ledger.paid_and_over() == {}
    assert ledger.backlogs() == []

    ledger.claim("b1", ["t1.0.0", "t2.0.0"], "w1", 60)
    ends = [("t1.0.0", "standard", 0.5), ("t2.0.0", "batch", 0.2)]
    ledger.settle(
        "w1",
        [Outcome(name, RequestState.DELIVERED, tier=tier, cost=cost) for name, tier, cost in ends],
    )

    assert ledger.paid_and_over() == {"t1.0.0": b"first", "t2.0.0": b"two"}
    for _ in range(2):
        ledger.forget_paid({"t1.0.0": 0.5, "t2.0.0": 0.25})
    assert ledger.paid(["t1.0.0", "t2.0.0", "t3.0.0"]) == {"t3.0.0": b"three"}
    first, second = ledger.rows(["t1.0.0", "t2.0.0"])
    assert (first.wasted, second.wasted) == (None, 0.25)
