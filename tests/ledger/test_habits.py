"""What the last calls of a task asked after their first request."""

from __future__ import annotations

from typing import Any

from lowtide.ledger import BatchState, Later, Ledger
from tests.ledger.support import advance, record, settle

TASK = "tasks.summarize"
BOOKED: dict[str, Any] = {"input_tokens": 10, "output_tokens": 4, "cost": 0.5, "full_price": 1.0}


def delivered(ledger: Ledger, batch_id: str, names: list[str], **booked: Any) -> None:
    record(ledger, batch_id, names)
    advance(ledger, batch_id, BatchState.FETCHED)
    settle(ledger, batch_id, names, **{**BOOKED, **booked})
    ledger.close_if_done(batch_id)


def test_means_are_those_of_one_call(ledger: Ledger) -> None:
    assert ledger.later(TASK) is None
    delivered(ledger, "b1", ["a.0.0", "b.0.0", "c.0.0", "d.0.0"])
    assert ledger.later(TASK) == Later(0.0, 0.0, 0.0, 0.0, 0.0)
    delivered(ledger, "b2", ["a.0.1", "a.0.10"])

    assert ledger.later(TASK) == Later(0.5, 5.0, 2.0, 0.25, 0.5)
    assert ledger.later("tasks.other") is None


def test_a_price_that_is_unknown_makes_the_mean_unknown(ledger: Ledger) -> None:
    delivered(ledger, "b1", ["a.0.0", "a.0.1"], cost=None)

    assert ledger.later(TASK) == Later(1.0, 10.0, 4.0, None, None)
