"""What counts against a provider's limit on enqueued tokens, and how good our estimates are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from lowtide.ledger import sql
from lowtide.ledger.engine import Database
from lowtide.ledger.tables import BATCHES, REQUESTS
from lowtide.ledger.transitions import BatchState

_BATCH = BATCHES.c
_ROW = REQUESTS.c
_AT_PROVIDER = (BatchState.SUBMITTING, BatchState.SUBMITTED)
_LEARN_FROM = 3
_MOST_LANES = 200


@dataclass(frozen=True, slots=True)
class Turn:
    """A lane that waits, by its oldest batch that is held.

    Attributes:
        lane: Its key.
        batch_id: The batch; "" for none.
        sealed_at: When that was sealed, epoch seconds.
        tokens: Estimated input tokens of what the lane has at the provider.
        ended_at: When its last batch ended, epoch seconds; 0 when none did.
    """

    lane: str
    batch_id: str
    sealed_at: float
    tokens: int
    ended_at: float

    @property
    def order(self) -> tuple[float, ...]:
        """Who has less at the provider is next; of those, who had nothing for longer."""
        return (self.tokens, self.ended_at, self.sealed_at)


class EnqueuedQueries:
    """The part of the ledger that limits need; see `Ledger`."""

    _db: Database

    def enqueued(self, account: str, model: str) -> int:
        """Estimated input tokens of all batches of a model that the provider has, or is getting."""
        query = select(func.coalesce(func.sum(_BATCH.tokens), 0)).where(
            _BATCH.account == account, _BATCH.model == model, _BATCH.state.in_(_AT_PROVIDER)
        )
        with self._db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def turns(self, queue: str, lane: str | None = None) -> list[Turn]:
        """Each lane's oldest batch of those that are held for `queue`, who is next first.

        Args:
            queue: What they wait for, as their `waits_for` says.
            lane: Key of a lane that is told of too, as without a batch that is held.
        """
        place = func.row_number().over(
            partition_by=_BATCH.lane, order_by=(_BATCH.sealed_at, _BATCH.id)
        )
        held = (
            select(_BATCH.lane, _BATCH.id, _BATCH.sealed_at, place.label("place"))
            .where(_BATCH.state == BatchState.HELD, _BATCH.waits_for == queue)
            .subquery()
        )
        first = select(held.c.lane, held.c.id, held.c.sealed_at).where(held.c.place == 1)
        with self._db.read() as connection:
            heads = connection.execute(first.order_by(held.c.sealed_at).limit(_MOST_LANES)).all()
            if not heads:
                return []
            found = {row.lane: (row.id, row.sealed_at) for row in heads}
            if lane is not None:
                found.setdefault(lane, ("", math.inf))
            sent = select(_BATCH.lane, func.sum(_BATCH.tokens)).where(
                _BATCH.state.in_(_AT_PROVIDER), sql.among(self._db, _BATCH.lane, found)
            )
            tokens = {row[0]: int(row[1]) for row in connection.execute(sent.group_by(_BATCH.lane))}
            turns = [
                Turn(name, *head, tokens.get(name, 0), _last_end(connection, name))
                for name, head in found.items()
            ]
        return sorted(turns, key=lambda turn: turn.order)

    def queues(self) -> list[str]:
        """What held batches wait for, as their `waits_for` says."""
        query = select(_BATCH.waits_for).where(
            _BATCH.state == BatchState.HELD, _BATCH.waits_for.is_not(None)
        )
        with self._db.read() as connection:
            return [str(queue) for queue in connection.execute(query.distinct()).scalars()]

    def token_ratio(self, model: str) -> float | None:
        """Input tokens that answers of `model` told, for each token estimated before.

        From its last delivered batches; None where none is.
        """
        last = (
            select(_BATCH.id)
            .where(_BATCH.model == model, _BATCH.state == BatchState.DELIVERED)
            .order_by(_BATCH.ended_at.desc())
            .limit(_LEARN_FROM)
        )
        query = select(func.sum(_ROW.input_tokens), func.sum(_ROW.tokens)).where(
            _ROW.batch_id.in_(last), _ROW.input_tokens.is_not(None)
        )
        with self._db.read() as connection:
            told, estimated = connection.execute(query).one()
        return float(told) / float(estimated) if told and estimated else None


def _last_end(connection: Connection, lane: str) -> float:
    query = (
        select(_BATCH.ended_at)
        .where(_BATCH.lane == lane, _BATCH.ended_at.is_not(None), _BATCH.submitted_at.is_not(None))
        .order_by(_BATCH.ended_at.desc())
        .limit(1)
    )
    return float(connection.execute(query).scalar_one_or_none() or 0.0)
