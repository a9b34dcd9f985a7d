"""The verbs that change one batch: lease, move, close; and the queries for batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Unpack

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
    update,
)

from lowtide.clock import Clock
from lowtide.errors import StateError, Superseded
from lowtide.ledger import texts
from lowtide.ledger.engine import Database
from lowtide.ledger.rows import BatchFields, BatchRow, Due, Lease
from lowtide.ledger.tables import BATCHES, REQUESTS
from lowtide.ledger.transitions import FINAL, OPEN, BatchState, RequestState, check_move

_STAMPS = {
    BatchState.UPLOADED: "uploaded_at",
    BatchState.SUBMITTING: "submitting_at",
    BatchState.SUBMITTED: "submitted_at",
    BatchState.ENDED: "ended_at",
    BatchState.FETCHED: "fetched_at",
    BatchState.DELIVERED: "delivered_at",
    BatchState.CANCELLED: "ended_at",
}
"""The column that says when a batch came into the state."""

_TOLD = ("reason", "provider_status")
"""Fields that may hold a provider's words."""
_RELEASED: dict[str, Any] = {"lease_owner": None, "lease_until": None}
_BATCH = BATCHES.c
_ROW = REQUESTS.c
_NAMES = [field.name for field in fields(BatchRow)]
COLUMNS = [BATCHES.c[name] for name in _NAMES]
"""What `batch_row` reads."""
# Each slice asks: to build a query takes longer than to run it.
_BY_ID = select(*COLUMNS).where(_BATCH.id == bindparam("name"))
_BY_PROVIDER_ID = select(*COLUMNS).where(_BATCH.provider_batch_id == bindparam("name"))


class BatchVerbs:
    """The part of the ledger that is about batches; see `Ledger`."""

    _db: Database
    _clock: Clock

    def lease(self, batch_id: str, owner: str, ttl: float) -> Lease | None:
        """Takes the sole right to take steps with a batch.

        Args:
            batch_id: The batch.
            owner: Who asks, for people; a lease of the same owner that still runs counts too.
            ttl: Seconds after which another may take the batch over.

        Returns:
            The lease; None if one still runs, or there is no such batch, or it is final.
        """
        with self._db.write() as connection:
            return self._leased(connection, batch_id, owner, ttl)

    def _leased(
        self, connection: Connection, batch_id: str, owner: str, ttl: float
    ) -> Lease | None:
        now = self._clock.now()
        taken = (
            update(BATCHES)
            .where(
                _BATCH.id == batch_id,
                or_(_BATCH.lease_until.is_(None), _BATCH.lease_until <= now),
                _BATCH.state.not_in(FINAL),
            )
            .values(fence=_BATCH.fence + 1, lease_owner=owner, lease_until=now + ttl)
            .returning(_BATCH.fence)
        )
        fence = connection.execute(taken).scalar_one_or_none()
        return None if fence is None else Lease(batch_id, fence, owner, now + ttl)

    def renew(self, lease: Lease, ttl: float) -> Lease:
        """The same lease for another `ttl` seconds from now.

        Raises:
            Superseded: Another took the batch over, or the lease was given back.
        """
        until = self._clock.now() + ttl
        with self._db.write() as connection:
            write_held(connection, lease, lease_until=until)
        return Lease(lease.batch_id, lease.fence, lease.owner, until)

    def release(self, lease: Lease) -> bool:
        """Gives a lease back, so that the next step can be taken at once.

        Returns:
            False if it was not ours any more: nothing to do about it.
        """
        given = update(BATCHES).where(_held(lease)).values(_RELEASED)
        with self._db.write() as connection:
            return connection.execute(given).rowcount > 0

    def move(
        self,
        lease: Lease,
        to: BatchState | str,
        *,
        release: bool = False,
        **noted: Unpack[BatchFields],
    ) -> BatchRow:
        """Brings a batch to another state, or notes something with the state it has.

        When it comes into the state, the time is noted; `next_at`, `reason` and `waits_for` are
        cleared if they are not given. Moving to the state that it has changes only what is given.

        Args:
            lease: Who moves it.
            to: Where to.
            release: Give the lease back with it.
            noted: Fields of the batch.

        Returns:
            The batch as it is then.

        Raises:
            StateError: The table of transitions does not allow it, or it would become final
                while a request in it has no outcome.
            Superseded: Another took the batch over, or the lease was given back.
        """
        state = BatchState(to)
        values = _known(noted)
        if release:
            values |= _RELEASED
        with self._db.write() as connection:
            return self._moved(connection, lease, state, values)

    def move_free(
        self, batch_id: str, owner: str, to: BatchState, **noted: Unpack[BatchFields]
    ) -> BatchRow | None:
        """Leases a batch, moves it and gives the lease back, in one transaction.

        Returns:
            The batch as it is then; None if another's lease runs, there is no such batch, or it
            is final.

        Raises:
            StateError: As `move`.
        """
        values = {**_known(noted), **_RELEASED}
        with self._db.write() as connection:
            lease = self._leased(connection, batch_id, owner, ttl=0.0)
            return None if lease is None else self._moved(connection, lease, to, values)

    def _moved(
        self, connection: Connection, lease: Lease, state: BatchState, values: dict[str, Any]
    ) -> BatchRow:
        before = lock_batch(connection, lease.batch_id).state
        check_move(lease.batch_id, before, state)
        if before is not state:
            if state in FINAL:
                _refuse_unsettled(connection, lease.batch_id, state)
            left = dict.fromkeys(("next_at", "reason", "waits_for"))
            values = {**left, "state": state} | values
            if state in _STAMPS:
                values.setdefault(_STAMPS[state], self._clock.now())
        return write_held(connection, lease, **values)

    def close_if_done(self, batch_id: str) -> bool:
        """Makes a FETCHED batch DELIVERED once each of its requests has an outcome.

        Returns:
            True if the batch is DELIVERED, now or before.
        """
        closed = (
            update(BATCHES)
            .where(
                _BATCH.id == batch_id,
                _BATCH.state == BatchState.FETCHED,
                ~exists().where(unsettled(batch_id)),
            )
            .values(
                state=BatchState.DELIVERED,
                delivered_at=self._clock.now(),
                next_at=None,
                lease_owner=None,
                lease_until=None,
            )
        )
        with self._db.write() as connection:
            if connection.execute(closed).rowcount > 0:
                return True
            query = select(_BATCH.state).where(_BATCH.id == batch_id)
            return connection.execute(query).scalar_one_or_none() == BatchState.DELIVERED

    def batch(self, batch_id: str) -> BatchRow | None:
        """The batch with our id `batch_id`."""
        return self._one(_BY_ID, batch_id)

    def by_provider_id(self, provider_batch_id: str) -> BatchRow | None:
        """The batch that the provider calls `provider_batch_id`."""
        return self._one(_BY_PROVIDER_ID, provider_batch_id)

    def _one(self, query: Select[Any], name: str) -> BatchRow | None:
        with self._db.read() as connection:
            row = connection.execute(query, {"name": name}).one_or_none()
        return None if row is None else batch_row(row)

    def batches(
        self, states: Iterable[BatchState] | None = None, limit: int = 100
    ) -> list[BatchRow]:
        """Batches in `states` (None = any), the one recorded last first."""
        query = select(*COLUMNS).order_by(_BATCH.recorded_at.desc(), _BATCH.id.desc())
        if states is not None:
            query = query.where(_BATCH.state.in_(list(states)))
        with self._db.read() as connection:
            return [batch_row(row) for row in connection.execute(query.limit(limit))]

    def due(self, limit: int = 1000, after: Due | None = None) -> list[Due]:
        """Batches that are not final and that nobody holds, the longest due first.

        Those with a `next_at` still to come are among them: a sweep arms their timers too.

        Args:
            limit: Most to tell of.
            after: The last one of those told of before; the list goes on behind it.
        """
        now = self._clock.now()
        when = func.coalesce(_BATCH.next_at, 0.0)
        query = (
            select(_BATCH.id, _BATCH.state, _BATCH.next_at)
            .where(
                _BATCH.state.in_(OPEN),
                or_(_BATCH.lease_until.is_(None), _BATCH.lease_until <= now),
            )
            .order_by(when, _BATCH.id)
            .limit(limit)
        )
        if after is not None:
            place = after.next_at or 0.0
            behind = or_(when > place, and_(when == place, _BATCH.id > after.batch_id))
            query = query.where(behind)
        with self._db.read() as connection:
            return [
                Due(row.id, BatchState(row.state), row.next_at) for row in connection.execute(query)
            ]


def _known(noted: Mapping[str, Any]) -> dict[str, Any]:
    unknown = noted.keys() - BatchFields.__annotations__.keys()
    if unknown:
        raise TypeError(f"a batch has no field {', '.join(sorted(unknown))} to note")
    values = dict(noted)
    for name in _TOLD:
        if isinstance(values.get(name), str):
            values[name] = texts.clean(values[name])
    return values


def unsettled(batch_id: str) -> ColumnElement[bool]:
    """The condition for the rows of a batch that have no outcome."""
    return and_(_ROW.batch_id == batch_id, _ROW.state == RequestState.RECORDED)


def lock_batch(connection: Connection, batch_id: str) -> BatchRow:
    """The batch, locked until the transaction ends.

    Raises:
        StateError: There is no such batch.
    """
    query = select(*COLUMNS).where(_BATCH.id == batch_id).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise StateError(f"The ledger has no batch {batch_id}.", {"batch_id": batch_id})
    return batch_row(row)


def write_held(connection: Connection, lease: Lease, **values: Any) -> BatchRow:
    """Writes `values` to the batch of `lease`.

    Raises:
        Superseded: The lease is not the last one given, or was given back.
    """
    values = values or {"fence": lease.fence}
    written = update(BATCHES).where(_held(lease)).values(**values).returning(*COLUMNS)
    row = connection.execute(written).one_or_none()
    if row is None:
        raise Superseded(
            f"Another replica took over batch {lease.batch_id}; nothing was written.",
            {"batch_id": lease.batch_id, "fence": lease.fence, "owner": lease.owner},
        )
    return batch_row(row)


def count_rows(connection: Connection, batch_id: str) -> int:
    """Notes with a batch how many rows it holds and their tokens; returns how many."""
    inside = _ROW.batch_id == batch_id
    counted = (
        update(BATCHES)
        .where(_BATCH.id == batch_id)
        .values(
            requests=select(func.count()).where(inside).scalar_subquery(),
            tokens=select(func.coalesce(func.sum(_ROW.tokens), 0)).where(inside).scalar_subquery(),
        )
        .returning(_BATCH.requests)
    )
    return int(connection.execute(counted).scalar_one())


def _held(lease: Lease) -> ColumnElement[bool]:
    return and_(
        _BATCH.id == lease.batch_id,
        _BATCH.fence == lease.fence,
        _BATCH.lease_until.is_not(None),
    )


def _refuse_unsettled(connection: Connection, batch_id: str, to: BatchState) -> None:
    query = select(func.count()).where(unsettled(batch_id))
    left = connection.execute(query).scalar_one()
    if left:
        raise StateError(
            f"Batch {batch_id} cannot become {to}: {left} of its requests have no outcome.",
            {"batch_id": batch_id, "wanted": str(to), "undelivered": left},
        )


def batch_row(row: Any) -> BatchRow:
    """The batch of a row that holds `COLUMNS`."""
    values = dict(zip(_NAMES, row, strict=True))
    values["state"] = BatchState(values["state"])
    return BatchRow(**values)
