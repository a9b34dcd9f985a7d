"""What counts against a provider's limit on enqueued tokens, and how good our estimates are."""

from __future__ import annotations

from sqlalchemy import func, select

from lowtide.ledger.engine import Database
from lowtide.ledger.tables import BATCHES, REQUESTS
from lowtide.ledger.transitions import BatchState

_BATCH = BATCHES.c
_ROW = REQUESTS.c
_AT_PROVIDER = (BatchState.SUBMITTING, BatchState.SUBMITTED)
_LEARN_FROM = 3


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

    def held(self, account: str, model: str, limit: int = 100) -> list[tuple[str, str, float]]:
        """(id, lane, sealed_at) of a model's batches that are held back, the oldest first."""
        query = (
            select(_BATCH.id, _BATCH.lane, _BATCH.sealed_at)
            .where(
                _BATCH.account == account,
                _BATCH.model == model,
                _BATCH.state == BatchState.HELD,
            )
            .order_by(_BATCH.sealed_at, _BATCH.id)
            .limit(limit)
        )
        with self._db.read() as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(query)]

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
