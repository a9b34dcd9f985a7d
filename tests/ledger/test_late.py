"""Requests whose deadline is near."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import event

from lowtide.clock import SystemClock
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


@pytest.mark.parametrize(
    "ask",
    [
        Ledger.next_escalation,
        lambda ledger: ledger.late_tasks(25.0),
        lambda ledger: ledger.late(25.0, 9, ["tasks.known"]),
    ],
    ids=["next", "tasks", "late"],
)
def test_only_what_is_ever_to_be_escalated_is_looked_at(
    tmp_path: Path, ask: Callable[[Ledger], object]
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", SystemClock())
    ledger.create()
    engine, asked = ledger._db.engine, []

    def note(_: Any, __: Any, text: str, values: Any, *___: Any) -> None:
        asked.append((text, values))

    event.listen(engine, "before_cursor_execute", note)
    ask(ledger)
    event.remove(engine, "before_cursor_execute", note)

    (query, values) = next((text, values) for text, values in asked if "SELECT" in text)
    with ledger._db.read() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values).all()
        index = connection.exec_driver_sql(
            "SELECT sql FROM sqlite_master WHERE name = 'ix_lowtide_requests_state_escalate_at'"
        ).scalar_one()
    ledger.close()
    assert "ix_lowtide_requests_state_escalate_at" in plan[0][-1]
    assert str(index).endswith("WHERE escalate_at IS NOT NULL")


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
