"""The queries of those who look: lists of batches and requests in pages, counts by outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, literal, or_, select

from lowtide.ledger import sql
from lowtide.ledger.batches import COLUMNS, batch_row
from lowtide.ledger.engine import Database
from lowtide.ledger.money import cost_row, sums
from lowtide.ledger.rows import BatchRow, CostRow
from lowtide.ledger.tables import BATCHES, REQUESTS
from lowtide.ledger.transitions import RequestState

_BATCH = BATCHES.c
_ROW = REQUESTS.c


@dataclass(frozen=True, slots=True)
class RequestLine:
    """A request without its blob; see `rows.RequestRow`."""

    custom_id: str
    task_id: str
    task: str
    batch_id: str
    state: RequestState
    attempt: int
    tokens: int
    status_code: int | None
    error_code: str | None
    error_message: str | None
    provider_request_id: str | None
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cost: float | None
    full_price: float | None
    recorded_at: float
    done_at: float | None
    tier: str | None


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """How many requests ended alike.

    Attributes:
        code: The provider's error code; None for none.
        message: One of their error messages.
    """

    state: RequestState
    code: str | None
    status: int | None
    count: int
    message: str | None


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values are at most each bound, and their sum.

    Attributes:
        counts: For each bound in order, how many values do not pass it.
        total: How many values there are.
        sum: All values together.
    """

    counts: tuple[int, ...]
    total: int
    sum: float


_LINE_NAMES = [field.name for field in fields(RequestLine)]
_LINE_COLUMNS = [REQUESTS.c[name] for name in _LINE_NAMES]


class Lookups:
    """The part of the ledger that is for those who look; see `Ledger`."""

    _db: Database

    def find_batches(
        self,
        *,
        states: Sequence[str] | None = None,
        lane: str | None = None,
        parent: str | None = None,
        before: tuple[float, str] | None = None,
        limit: int = 50,
    ) -> list[BatchRow]:
        """Batches, the one recorded last first.

        Args:
            states: Only those in one of these states.
            lane: Only those of this lane key.
            parent: Only those whose requests were in this batch before.
            before: (recorded_at, id) of the last one of the page before.
            limit: At most so many.
        """
        query = select(*COLUMNS).order_by(_BATCH.recorded_at.desc(), _BATCH.id.desc())
        if states is not None:
            query = query.where(_BATCH.state.in_(list(states)))
        if lane is not None:
            query = query.where(_BATCH.lane == lane)
        if parent is not None:
            query = query.where(_BATCH.parent == parent)
        if before is not None:
            at, last = before
            query = query.where(
                or_(_BATCH.recorded_at < at, and_(_BATCH.recorded_at == at, _BATCH.id < last))
            )
        with self._db.read() as connection:
            return [batch_row(row) for row in connection.execute(query.limit(limit))]

    def requests_in(
        self,
        batch_id: str,
        *,
        states: Sequence[str] | None = None,
        after: str = "",
        limit: int = 50,
    ) -> list[RequestLine]:
        """Requests of a batch by their custom_id, from the one after `after`."""
        query = (
            select(*_LINE_COLUMNS)
            .where(_ROW.batch_id == batch_id, _ROW.custom_id > after)
            .order_by(_ROW.custom_id)
            .limit(limit)
        )
        if states is not None:
            query = query.where(_ROW.state.in_(list(states)))
        with self._db.read() as connection:
            return [_line(row) for row in connection.execute(query)]

    def blobs_in(self, batch_id: str, after: str = "", limit: int = 500) -> dict[str, bytes]:
        """custom_id → blob of requests of a batch, from the one after `after`, whatever became
        of them.
        """
        query = (
            select(_ROW.custom_id, _ROW.blob)
            .where(_ROW.batch_id == batch_id, _ROW.custom_id > after)
            .order_by(_ROW.custom_id)
            .limit(limit)
        )
        with self._db.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def outcomes_in(self, batch_id: str) -> list[OutcomeCount]:
        """How the requests of a batch ended, grouped by state and error, the most first."""
        count = func.count()
        query = (
            select(
                _ROW.state,
                _ROW.error_code,
                _ROW.status_code,
                count,
                func.max(_ROW.error_message),
            )
            .where(_ROW.batch_id == batch_id)
            .group_by(_ROW.state, _ROW.error_code, _ROW.status_code)
            .order_by(count.desc(), _ROW.state)
        )
        with self._db.read() as connection:
            return [
                OutcomeCount(RequestState(state), *rest)
                for state, *rest in connection.execute(query)
            ]

    def cost_of(self, batch_id: str) -> CostRow:
        """Usage and money of one batch."""
        query = sums(literal(batch_id)).where(
            _ROW.batch_id == batch_id, _ROW.state != RequestState.RECORDED
        )
        with self._db.read() as connection:
            return cost_row(connection.execute(query).one())

    def batch_counts(self) -> list[tuple[str, str, int, int]]:
        """(lane, state, batches, requests) of all batches."""
        query = (
            select(_BATCH.lane, _BATCH.state, func.count(), func.sum(_BATCH.requests))
            .group_by(_BATCH.lane, _BATCH.state)
            .order_by(_BATCH.lane, _BATCH.state)
        )
        with self._db.read() as connection:
            return [
                (lane, str(s), int(n), int(r or 0)) for lane, s, n, r in connection.execute(query)
            ]

    def lanes_since(self, lanes: Sequence[str], since: float) -> set[str]:
        """Those of `lanes` that have a batch on its way, or one that ended since, epoch seconds."""
        query = (
            select(_BATCH.lane)
            .where(
                sql.among(self._db, BATCHES.c.lane, lanes),
                or_(_BATCH.ended_at.is_(None), _BATCH.ended_at >= since),
            )
            .distinct()
        )
        with self._db.read() as connection:
            return set(connection.execute(query).scalars())

    def turnaround_histogram(self, bounds: Sequence[float]) -> dict[str, Histogram]:
        """For each lane how long the provider took for its batches, in seconds."""
        took = _BATCH.ended_at - _BATCH.submitted_at
        where = and_(_BATCH.submitted_at.is_not(None), _BATCH.ended_at.is_not(None))
        return self._histogram(_BATCH.lane, took, where, bounds)

    def delay_histogram(self, bounds: Sequence[float]) -> dict[str, Histogram]:
        """For each task the seconds from the record of a request to its outcome."""
        took = _ROW.done_at - _ROW.recorded_at
        return self._histogram(_ROW.task, took, _ROW.done_at.is_not(None), bounds)

    def _histogram(
        self,
        key: ColumnElement[Any],
        value: ColumnElement[Any],
        where: ColumnElement[bool],
        bounds: Sequence[float],
    ) -> dict[str, Histogram]:
        within = [func.sum(case((value <= bound, 1), else_=0)) for bound in bounds]
        query = (
            select(key, func.count(), func.sum(value), *within).where(where).group_by(key)
        ).order_by(key)
        with self._db.read() as connection:
            return {
                name: Histogram(tuple(int(n) for n in counts), int(total), float(summed))
                for name, total, summed, *counts in connection.execute(query)
            }


def _line(row: Any) -> RequestLine:
    values = dict(zip(_LINE_NAMES, row, strict=True))
    values["state"] = RequestState(values["state"])
    return RequestLine(**values)
