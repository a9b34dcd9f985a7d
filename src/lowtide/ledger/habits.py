"""What the last calls of a task asked after their first request: for forecasts of more of them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, case, func, select

from lowtide.ledger.engine import Database
from lowtide.ledger.tables import BATCHES, REQUESTS
from lowtide.ledger.transitions import BatchState

_BATCH = BATCHES.c
_ROW = REQUESTS.c
_LEARN_FROM = 200
# The end of the custom_id of a run's first request.
_FIRST = "%.0"


@dataclass(frozen=True, slots=True)
class Later:
    """What one call of a task asks on average after its first request.

    Attributes:
        requests: How many requests.
        input_tokens: Of all of them together.
        output_tokens: Of all of them together.
        cost: USD as they were booked; None when a price is unknown.
        full_price: USD at the synchronous API; None when it is unknown.
    """

    requests: float
    input_tokens: float
    output_tokens: float
    cost: float | None
    full_price: float | None


class HabitQueries:
    """The part of the ledger that forecasts learn from; see `Ledger`."""

    _db: Database

    def later(self, task: str) -> Later | None:
        """What calls of `task` in the last delivered batches asked later; None without any."""
        last = (
            select(_BATCH.id)
            .where(_BATCH.state == BatchState.DELIVERED)
            .order_by(_BATCH.ended_at.desc())
            .limit(_LEARN_FROM)
        )
        is_later = _ROW.custom_id.not_like(_FIRST)
        unpriced = and_(is_later, _ROW.input_tokens.is_not(None), _ROW.cost.is_(None))
        query = select(
            func.sum(case((is_later, 0), else_=1)),
            func.sum(case((is_later, 1), else_=0)),
            *(
                func.coalesce(func.sum(case((is_later, column), else_=None)), 0.0)
                for column in (
                    _ROW.input_tokens,
                    _ROW.output_tokens,
                    _ROW.cost,
                    _ROW.full_price,
                )
            ),
            func.sum(case((unpriced, 1), else_=0)),
        ).where(_ROW.batch_id.in_(last), _ROW.task == task)
        with self._db.read() as connection:
            found = connection.execute(query).one()
        if not found[0]:
            return None
        requests, given, written, cost, full = (
            float(sum_) / float(found[0]) for sum_ in found[1:6]
        )
        priced = not found[6]
        return Later(requests, given, written, cost if priced else None, full if priced else None)
