"""Requests whose deadline is near, and money paid beside the batch's price."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from sqlalchemy import bindparam, exists, func, or_, select, update

from lowtide.ledger import sql
from lowtide.ledger.engine import Database
from lowtide.ledger.tables import REQUESTS
from lowtide.ledger.transitions import RequestState

_ROW = REQUESTS.c


class LateVerbs:
    """The part of the ledger that deadlines need; see `Ledger`."""

    _db: Database

    def late(self, now: float, limit: int, tasks: Collection[str]) -> dict[str, list[str]]:
        """Requests without an outcome whose time to escalate has come, the longest due first.

        Args:
            now: Epoch seconds.
            limit: How many at most; those that share a line with one of them come along.
            tasks: Names of the tasks whose requests are meant.

        Returns:
            Their custom_ids by batch; those that somebody delivers just now are left out.
        """
        due = (
            select(_ROW.batch_id, _ROW.custom_id, _ROW.share_key)
            .where(
                _ROW.state == RequestState.RECORDED,
                _ROW.escalate_at <= now,
                or_(_ROW.claim.is_(None), _ROW.claim_until <= now),
                sql.among(self._db, _ROW.task, tasks),
            )
            .order_by(_ROW.escalate_at)
        )
        found: dict[str, list[str]] = defaultdict(list)
        with self._db.read() as connection:
            rows = list(connection.execute(due.limit(limit)))
            keys = {row.share_key for row in rows} - {None}
            if keys:
                shared = due.where(
                    _ROW.share_key.is_not(None), sql.among(self._db, _ROW.share_key, keys)
                )
                rows += connection.execute(shared)
        for batch_id, custom_id in dict.fromkeys((row.batch_id, row.custom_id) for row in rows):
            found[batch_id].append(custom_id)
        return dict(found)

    def late_tasks(self, now: float) -> set[str]:
        """Names of the tasks with requests that were to be escalated by `now`, epoch seconds."""
        query = (
            select(_ROW.task)
            .where(_ROW.state == RequestState.RECORDED, _ROW.escalate_at <= now)
            .distinct()
        )
        with self._db.read() as connection:
            return set(connection.execute(query).scalars())

    def next_escalation(self) -> float | None:
        """When the next request is to be escalated, epoch seconds; None when none is."""
        query = select(func.min(_ROW.escalate_at)).where(
            _ROW.state == RequestState.RECORDED,
            _ROW.escalate_at.is_not(None),  # so that the index serves, which has these alone
        )
        with self._db.read() as connection:
            found = connection.execute(query).scalar_one()
        return None if found is None else float(found)

    def postpone(self, custom_ids: Collection[str], at: float | None) -> None:
        """Sets when requests are to be escalated: again, at their deadline, or never."""
        statement = update(REQUESTS).where(sql.among(self._db, _ROW.custom_id, custom_ids))
        with self._db.write() as connection:
            connection.execute(statement.values(escalate_at=at))

    def book_waste(self, batch_id: str, costs: Mapping[str, float | None]) -> int:
        """Books what late answers of a batch cost; each once, however often it is fetched.

        Args:
            batch_id: The batch that they came with.
            costs: custom_id → USD; None counts as nothing, since nothing is known.

        Returns:
            How many were booked: requests that got their outcome otherwise, and whose answer no
            other uses.
        """
        if not costs:
            return 0
        follower = REQUESTS.alias("follower").c
        used = exists().where(
            follower.shares.is_not(None),
            follower.shares == _ROW.custom_id,
            follower.tier == "batch",
        )
        statement = (
            update(REQUESTS)
            .where(
                _ROW.custom_id == bindparam("which"),
                _ROW.batch_id == batch_id,
                func.coalesce(_ROW.tier, "") != "batch",
                _ROW.wasted.is_(None),
                ~used,
            )
            .values(wasted=bindparam("paid"))
        )
        rows = [{"which": name, "paid": cost or 0.0} for name, cost in costs.items()]
        with self._db.write() as connection:
            return connection.execute(statement, rows).rowcount

    def spent_faster(self, since: float) -> float:
        """USD paid to faster services than batch for outcomes since then."""
        query = select(func.coalesce(func.sum(_ROW.cost), 0.0)).where(
            _ROW.done_at >= since, _ROW.tier.in_(["flex", "standard"])
        )
        with self._db.read() as connection:
            return float(connection.execute(query).scalar_one())
