"""The queries for requests: the lines of a batch, a task's requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import func, select

from lowtide.ledger.batches import unsettled
from lowtide.ledger.engine import Database
from lowtide.ledger.rows import RequestRow
from lowtide.ledger.tables import REQUESTS
from lowtide.ledger.transitions import RequestState

_ROW = REQUESTS.c
_NAMES = [field.name for field in fields(RequestRow)]
_COLUMNS = [REQUESTS.c[name] for name in _NAMES]


class RequestQueries:
    """The part of the ledger that is about requests; see `Ledger`."""

    _db: Database

    def lines(self, batch_id: str, chunk: int = 1000) -> Iterator[list[tuple[str, bytes]]]:
        """The (custom_id, blob) of each line of a batch's file: of all that is waited for.

        Requests that share a line are there once, by its name. In lists of up to `chunk`, each
        from a transaction of its own.
        """
        shared: set[str] = set()
        for rows in self._left(batch_id, chunk):
            lines = []
            for custom_id, blob, key, shares in rows:
                name = shares or custom_id
                if name in shared:
                    continue
                if key is not None:
                    shared.add(name)
                lines.append((name, blob))
            if lines:
                yield lines

    def blobs(self, batch_id: str, chunk: int = 1000) -> Iterator[list[tuple[str, bytes]]]:
        """The (custom_id, blob) of all requests of a batch that have no outcome.

        In lists of up to `chunk`, by custom_id, each from a transaction of its own.
        """
        for rows in self._left(batch_id, chunk):
            yield [(row[0], row[1]) for row in rows]

    def _left(self, batch_id: str, chunk: int) -> Iterator[Sequence[Any]]:
        last = ""
        while True:
            query = (
                select(_ROW.custom_id, _ROW.blob, _ROW.share_key, _ROW.shares)
                .where(unsettled(batch_id), _ROW.custom_id > last)
                .order_by(_ROW.custom_id)
                .limit(chunk)
            )
            with self._db.read() as connection:
                rows = connection.execute(query).all()
            if rows:
                last = rows[-1][0]
                yield rows
            if len(rows) < chunk:
                return

    def waiting(self, batch_id: str, chunk: int = 5000) -> Iterator[list[tuple[str, str]]]:
        """The (task name, task id) of all requests of a batch that have no outcome.

        In lists of up to `chunk`, by custom_id, each from a transaction of its own.
        """
        last = ""
        while True:
            query = (
                select(_ROW.custom_id, _ROW.task, _ROW.task_id)
                .where(unsettled(batch_id), _ROW.custom_id > last)
                .order_by(_ROW.custom_id)
                .limit(chunk)
            )
            with self._db.read() as connection:
                rows = connection.execute(query).all()
            if rows:
                last = rows[-1][0]
                yield [(row[1], row[2]) for row in rows]
            if len(rows) < chunk:
                return

    def undelivered(self, batch_id: str) -> int:
        """How many requests of a batch have no outcome."""
        query = select(func.count()).where(unsettled(batch_id))
        with self._db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def attempt(self, batch_id: str) -> int:
        """How often the requests of a batch were sent, this time included, counted from 1.

        It is the same for all of them: those that are sent again share a new batch.
        """
        query = select(_ROW.attempt).where(_ROW.batch_id == batch_id).limit(1)
        with self._db.read() as connection:
            return connection.execute(query).scalar_one_or_none() or 1

    def ids(self, batch_id: str) -> set[str]:
        """The custom_ids of a batch's requests that have no outcome."""
        query = select(_ROW.custom_id).where(unsettled(batch_id))
        with self._db.read() as connection:
            return set(connection.execute(query).scalars())

    def names(self, batch_id: str) -> set[str]:
        """The names of a batch's lines that are waited for: custom_ids, each line once."""
        query = select(func.coalesce(_ROW.shares, _ROW.custom_id)).where(unsettled(batch_id))
        with self._db.read() as connection:
            return set(connection.execute(query).scalars())

    def task(self, task_id: str) -> list[RequestRow]:
        """All requests of one Celery task, in the order in which they were recorded."""
        query = (
            select(*_COLUMNS)
            .where(_ROW.task_id == task_id)
            .order_by(_ROW.recorded_at, _ROW.custom_id)
        )
        with self._db.read() as connection:
            return [_request_row(row) for row in connection.execute(query)]


def _request_row(row: Any) -> RequestRow:
    values = dict(zip(_NAMES, row, strict=True))
    values["state"] = RequestState(values["state"])
    return RequestRow(**values)
