"""Requests whose deadline is near."""

from __future__ import annotations

from msgspec import structs

from lowtide.ledger import Ledger, NewRequest
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
