"""Why requests that are sent again had no answer before: kept until their last batch is purged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from lowtide.ledger import sql, texts
from lowtide.ledger.engine import Database
from lowtide.ledger.tables import ATTEMPTS

_ROW = ATTEMPTS.c
_LONGEST_TEXT = 300


@dataclass(frozen=True, slots=True)
class Attempt:
    """One time that a request was sent and got no answer.

    Attributes:
        at: When it was known to have failed, epoch seconds.
        batch_id: The batch that it was in, by our id.
        provider_batch_id: The same by the provider's id.
        status: HTTP status of its line; None when it had none.
        code: The provider's error code, or what was wrong in our words ("expired", "missing").
        message: The provider's words; None when it said nothing.
    """

    at: float
    batch_id: str
    provider_batch_id: str | None = None
    status: int | None = None
    code: str | None = None
    message: str | None = None


class AttemptQueries:
    """The part of the ledger that remembers failed attempts; see `Ledger`."""

    _db: Database

    def attempts(self, custom_ids: Collection[str]) -> dict[str, list[Attempt]]:
        """The failed attempts of requests that were sent again, oldest first."""
        query = (
            select(
                _ROW.custom_id,
                _ROW.at,
                _ROW.batch_id,
                _ROW.provider_batch_id,
                _ROW.status_code,
                _ROW.code,
                _ROW.message,
            )
            .where(sql.among(self._db, _ROW.custom_id, custom_ids))
            .order_by(_ROW.custom_id, _ROW.attempt)
        )
        found: dict[str, list[Attempt]] = defaultdict(list)
        with self._db.read() as connection:
            for custom_id, *rest in connection.execute(query):
                found[custom_id].append(Attempt(*rest))
        return dict(found)


def note(connection: Connection, numbers: Mapping[str, int], failed: Mapping[str, Attempt]) -> None:
    """Notes how attempts failed, in the transaction that sends their requests again.

    Args:
        connection: The transaction.
        numbers: custom_id → which attempt it was, from 1.
        failed: custom_id → how it failed; others are left out.
    """
    rows: list[dict[str, Any]] = [
        {
            "custom_id": custom_id,
            "attempt": number,
            "at": failed[custom_id].at,
            "batch_id": failed[custom_id].batch_id,
            "provider_batch_id": failed[custom_id].provider_batch_id,
            "status_code": failed[custom_id].status,
            "code": _clean(failed[custom_id].code),
            "message": _clean(failed[custom_id].message),
        }
        for custom_id, number in numbers.items()
        if custom_id in failed
    ]
    if rows:
        connection.execute(insert(ATTEMPTS), rows)


def _clean(value: str | None) -> str | None:
    return None if value is None else texts.clean(value, _LONGEST_TEXT)
