"""The queries of a replay: whole requests by their ids, and which of a task's was its last."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any

from sqlalchemy import select

from lowtide.ids import place
from lowtide.ledger import sql
from lowtide.ledger.engine import Database
from lowtide.ledger.rows import RequestRow
from lowtide.ledger.tables import REQUESTS
from lowtide.ledger.transitions import RequestState

_ROW = REQUESTS.c
_NAMES = [field.name for field in fields(RequestRow)]


class ReplayQueries:
    """The part of the ledger that is about delivering again; see `Ledger`."""

    _db: Database

    def rows(self, custom_ids: Collection[str]) -> list[RequestRow]:
        """Requests by their custom_ids, in the order of these; unknown ones are left out."""
        query = (
            select(*(_ROW[name] for name in _NAMES))
            .where(sql.among(self._db, _ROW.custom_id, custom_ids))
            .order_by(_ROW.custom_id)
        )
        with self._db.read() as connection:
            return [_request_row(row) for row in connection.execute(query)]

    def last_of(self, task_ids: Collection[str]) -> dict[str, str]:
        """Task id → custom_id of the last request that the task made, of its last run."""
        query = select(_ROW.task_id, _ROW.custom_id).where(
            sql.among(self._db, _ROW.task_id, task_ids)
        )
        last: dict[str, str] = {}
        with self._db.read() as connection:
            for task_id, custom_id in connection.execute(query):
                if task_id not in last or place(custom_id) > place(last[task_id]):
                    last[task_id] = custom_id
        return last


def _request_row(row: Any) -> RequestRow:
    values = dict(zip(_NAMES, row, strict=True))
    values["state"] = RequestState(values["state"])
    return RequestRow(**values)
