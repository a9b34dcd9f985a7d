"""What is spent in a day and what is set aside for batches that are on their way, under one lock.

Money that was booked counts, and for a batch that is not closed what it is expected to cost, if
that is more. So nothing is counted up and down, and nothing can be counted wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, func, or_, select

from lowtide.ledger.batches import write_held
from lowtide.ledger.engine import Database
from lowtide.ledger.rows import Lease
from lowtide.ledger.tables import BATCHES, REQUESTS
from lowtide.ledger.transitions import FINAL, OPEN, RequestState

_BATCH = BATCHES.c
_ROW = REQUESTS.c
_LOCK = 0x6C6F77747370  # PostgreSQL advisory lock: "lowtsp"
_WHOSE = (_BATCH.id, _BATCH.account, _BATCH.model, _BATCH.lane)
_LEARN_FROM = 3


@dataclass(frozen=True, slots=True)
class Cap:
    """What may be spent in a UTC day; of the fields that are None any value counts.

    Attributes:
        name: What it is for, for people: "", "account eu", "task tasks.summarize".
        limit: USD.
    """

    name: str
    limit: float
    account: str | None = None
    model: str | None = None
    lane: str | None = None
    task: str | None = None

    def holds(self, account: str, model: str, lane: str, task: str) -> bool:
        """Whether requests of a task in a lane are under this cap."""
        mine = (self.account, self.model, self.lane, self.task)
        # A lane's cap is for all its shares together.
        whole = self.lane if lane.startswith(f"{self.lane}:") else lane
        given = (account, model, whole, task)
        return all(a is None or a == b for a, b in zip(mine, given, strict=True))


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of one task in a batch.

    Attributes:
        requests: How many have no outcome; those that share a line count as one.
        tokens: Their estimated input tokens.
    """

    requests: int
    tokens: int


class SpendVerbs:
    """The part of the ledger that spend caps need; see `Ledger`."""

    _db: Database

    def reserve(
        self, lease: Lease, estimate: Mapping[str, float], caps: Sequence[Cap], since: float
    ) -> dict[Cap, float]:
        """Sets aside what a batch is expected to cost, unless a cap leaves no room for it.

        Of all replicas one at a time: two batches never take the same room.

        Args:
            lease: Of the batch.
            estimate: Task → USD.
            caps: Those that the batch is under.
            since: When the day began, epoch seconds.

        Returns:
            Caps that leave no room, and what is spent and set aside under each; empty when the
            estimate is noted.

        Raises:
            Superseded: The lease is not ours any more.
        """
        with self._db.write() as connection:
            if not self._db.sqlite:  # SQLite's write transaction is the lock already
                connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            batch = write_held(connection, lease)
            used = _used(connection, caps, since, without=batch.id)
            over = {}
            for cap in caps:
                need = sum(
                    usd
                    for task, usd in estimate.items()
                    if cap.holds(batch.account, batch.model, batch.lane, task)
                )
                if need and used[cap] + need > cap.limit:
                    over[cap] = used[cap]
            if not over:
                write_held(connection, lease, estimate=orjson.dumps(dict(estimate)).decode())
            return over

    def spent(self, caps: Sequence[Cap], since: float) -> dict[Cap, float]:
        """USD spent since then and set aside, under each cap."""
        with self._db.read() as connection:
            return _used(connection, caps, since)

    def loads(self, batch_id: str) -> dict[str, Load]:
        """Task → what a batch holds of it that has no outcome."""
        query = (
            select(_ROW.task, func.count(), func.coalesce(func.sum(_ROW.tokens), 0))
            .where(
                _ROW.batch_id == batch_id,
                _ROW.state == RequestState.RECORDED,
                _ROW.shares.is_(None),
            )
            .group_by(_ROW.task)
        )
        with self._db.read() as connection:
            return {
                task: Load(int(count), int(tokens))
                for task, count, tokens in connection.execute(query)
            }

    def of_tasks(self, batch_id: str, tasks: Sequence[str]) -> list[str]:
        """The custom_ids of a batch's requests of some tasks that have no outcome."""
        query = select(_ROW.custom_id).where(
            _ROW.batch_id == batch_id,
            _ROW.state == RequestState.RECORDED,
            _ROW.task.in_(list(tasks)),
        )
        with self._db.read() as connection:
            return list(connection.execute(query).scalars())

    def written(self, model: str) -> dict[str, float]:
        """Task → output tokens of its answers on average, in the model's last delivered batches."""
        last = (
            select(_BATCH.id)
            .where(_BATCH.model == model, _BATCH.state == "DELIVERED")
            .order_by(_BATCH.ended_at.desc())
            .limit(_LEARN_FROM)
        )
        query = (
            select(_ROW.task, func.avg(_ROW.output_tokens))
            .where(_ROW.batch_id.in_(last), _ROW.output_tokens.is_not(None))
            .group_by(_ROW.task)
        )
        with self._db.read() as connection:
            return {task: float(mean) for task, mean in connection.execute(query)}


def _used(
    connection: Connection, caps: Sequence[Cap], since: float, without: str | None = None
) -> dict[Cap, float]:
    """USD under each cap: what was booked, or what is set aside where that is more."""
    money: dict[tuple[Any, ...], float] = defaultdict(float)
    for *key, usd in _booked(connection, since):
        money[tuple(key)] += usd
    for *whose, estimate in _set_aside(connection):
        for task, usd in orjson.loads(estimate).items():
            key_ = (*whose, task)
            if whose[0] != without:
                money[key_] = max(money[key_], usd)
    return {
        cap: sum(usd for (_, *scope), usd in money.items() if cap.holds(*scope)) for cap in caps
    }


def _booked(connection: Connection, since: float) -> Iterator[tuple[Any, ...]]:
    """(batch, account, model, lane, task, USD) of outcomes since then.

    They are in batches that are open or were closed since: few, and found by an index.
    """
    closed = func.coalesce(_BATCH.delivered_at, _BATCH.ended_at)
    query = (
        select(
            *_WHOSE,
            _ROW.task,
            func.sum(func.coalesce(_ROW.cost, 0.0) + func.coalesce(_ROW.wasted, 0.0)),
        )
        .join(REQUESTS, _ROW.batch_id == _BATCH.id)
        .where(
            or_(_BATCH.state.in_(OPEN), _BATCH.state.in_(FINAL) & (closed >= since)),
            _ROW.done_at >= since,
        )
        .group_by(*_WHOSE, _ROW.task)
    )
    return (tuple(row) for row in connection.execute(query))


def _set_aside(connection: Connection) -> Iterator[tuple[Any, ...]]:
    """(batch, account, model, lane, estimate as JSON) of batches that are not closed."""
    query = select(*_WHOSE, _BATCH.estimate).where(
        _BATCH.state.in_(OPEN), _BATCH.estimate.is_not(None)
    )
    return (tuple(row) for row in connection.execute(query))
