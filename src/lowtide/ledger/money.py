"""What was used and what it cost, and how long providers take."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, case, func, literal, select

from lowtide.clock import Clock
from lowtide.ledger import sql
from lowtide.ledger.engine import Database
from lowtide.ledger.rows import CostRow, Totals, Turnaround
from lowtide.ledger.tables import BATCHES, REQUESTS
from lowtide.ledger.transitions import BatchState, RequestState

By = Literal["task", "lane", "batch", "day", "tenant"]

_BATCH = BATCHES.c
_ROW = REQUESTS.c
_ANSWERED = _ROW.state.in_([RequestState.DELIVERED, RequestState.CONTINUED])


class MoneyQueries:
    """The part of the ledger that counts; see `Ledger`. Batch money is the sum over its rows."""

    _db: Database
    _clock: Clock

    def costs(
        self, by: By, *, since: float | None = None, until: float | None = None
    ) -> list[CostRow]:
        """Usage and money of requests with an outcome, by task, lane, batch, tenant or UTC day.

        Args:
            by: What one row of the answer is about; rows come in the order of their keys.
            since: Epoch seconds; outcomes from then on.
            until: Epoch seconds; outcomes before then.
        """
        key = self._key(by)
        query = sums(key).where(_ROW.state != RequestState.RECORDED).group_by(key).order_by(key)
        if by == "lane":
            query = query.join(BATCHES, _BATCH.id == _ROW.batch_id)
        if since is not None:
            query = query.where(_ROW.done_at >= since)
        if until is not None:
            query = query.where(_ROW.done_at < until)
        with self._db.read() as connection:
            return [cost_row(row) for row in connection.execute(query)]

    def _key(self, by: By) -> ColumnElement[Any]:
        if by == "day":
            return sql.whole_days(self._db, _ROW.done_at)
        return {
            "task": _ROW.task,
            "lane": _BATCH.lane,
            "batch": _ROW.batch_id,
            "tenant": func.coalesce(_ROW.tenant, ""),
        }[by]

    def totals(self) -> Totals:
        """How many batches and requests there are in each state, and the money of all."""
        batches = select(_BATCH.state, func.count()).group_by(_BATCH.state)
        requests = select(_ROW.state, func.count()).group_by(_ROW.state)
        with self._db.read() as connection:
            return Totals(
                {BatchState(state): n for state, n in connection.execute(batches)},
                {RequestState(state): n for state, n in connection.execute(requests)},
                cost_row(connection.execute(sums(literal(""))).one()),
            )

    def turnarounds(
        self, *, lane: str | None = None, since: float = 0.0, limit: int = 200
    ) -> list[Turnaround]:
        """How long the last batches took at the provider, the one that ended last first.

        Args:
            lane: Key of a lane; None = all.
            since: Epoch seconds; batches that ended from then on.
            limit: At most so many.
        """
        query = (
            select(_BATCH.lane, _BATCH.submitted_at, _BATCH.ended_at, _BATCH.requests)
            .where(_BATCH.submitted_at.is_not(None), _BATCH.ended_at >= since)
            .order_by(_BATCH.ended_at.desc())
            .limit(limit)
        )
        if lane is not None:
            query = query.where(_BATCH.lane == lane)
        with self._db.read() as connection:
            return [Turnaround(*row) for row in connection.execute(query)]


def sums(key: ColumnElement[Any]) -> Select[Any]:
    """Selects what `cost_row` reads: `key`, counts, tokens and money of requests."""
    saved = func.coalesce(_ROW.full_price - _ROW.cost, 0.0) - func.coalesce(_ROW.wasted, 0.0)
    return select(
        key,
        func.count(),
        _count(_ANSWERED),
        _count(_ROW.state == RequestState.FAILED),
        _count(_ROW.state == RequestState.REVOKED),
        _count(_ANSWERED & _ROW.cost.is_(None)),
        *(
            func.coalesce(func.sum(column), 0)
            for column in (
                _ROW.input_tokens,
                _ROW.cached_tokens,
                _ROW.output_tokens,
                _ROW.reasoning_tokens,
                _ROW.cost,
                _ROW.full_price,
                saved,
                _ROW.wasted,
            )
        ),
    ).select_from(REQUESTS)


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def cost_row(row: Any) -> CostRow:
    """The sums in a row that `sums` selected."""
    key, *rest = row
    if isinstance(key, int):
        key = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=key)).date().isoformat()
    counts = [int(value) for value in rest[:9]]
    return CostRow(key, *counts, *(float(value) for value in rest[9:]))
