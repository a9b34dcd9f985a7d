"""The verb that moves requests from one batch to the next, to be sent again."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, or_, select, update

from lowtide.clock import Clock
from lowtide.errors import StateError
from lowtide.ledger import attempts, sharing, sql, texts
from lowtide.ledger.batches import count_rows, lock_batch, unsettled, write_held
from lowtide.ledger.engine import Database
from lowtide.ledger.rows import BatchRow, Lease
from lowtide.ledger.tables import BATCHES, REQUESTS
from lowtide.ledger.transitions import BatchState, check_requeue

_ROW = REQUESTS.c


def new_batch_id(now: float) -> str:
    """A batch id of 21 characters; later ones sort after earlier ones."""
    return f"b{int(now * 1000):011x}{secrets.token_hex(5)[:9]}"


class RequeueVerbs:
    """The part of the ledger that sends requests again; see `Ledger`."""

    _db: Database
    _clock: Clock

    def requeue(
        self,
        batch: Lease | str,
        custom_ids: Collection[str] | None,
        *,
        reason: str,
        not_before: float | None = None,
        into: str | None = None,
        claim: str | None = None,
        tried: bool = True,
        failed: Mapping[str, attempts.Attempt] | None = None,
    ) -> str | None:
        """Moves requests that have no outcome into a new batch: all of them or none.

        Doing it again moves nothing: the requests are no longer in the old batch.

        Args:
            batch: The batch that they are in; with a lease the fence is checked. Without one it
                must not be held by anybody if it is RECORDED.
            custom_ids: Which, and with each all that share its line; None = all that have no
                outcome. Those that somebody else has claimed stay.
            reason: Why they are sent again, for people.
            not_before: Epoch seconds before which the new batch is not to be sent.
            into: Id for the new batch; made up if None. A batch of this id that came from the
                same batch, is still RECORDED and not held takes them too.
            claim: Claims of this owner are given up.
            tried: Whether this counts as an attempt: False when the provider ran nothing of it.
            failed: custom_id → how the attempt failed, to be remembered.

        Returns:
            The new batch's id; None if there was nothing to move and no such batch.

        Raises:
            StateError: There is no such batch, the provider has its requests and may still
                answer them, or `into` cannot take them.
            Superseded: The lease is not ours any more.
        """
        now = self._clock.now()
        new_id = into or new_batch_id(now)
        with self._db.write() as connection:
            if isinstance(batch, Lease):
                old = write_held(connection, batch)
            else:
                old = lock_batch(connection, batch)
            ids = self._movable(connection, old.id, custom_ids, claim, now)
            if not ids:
                return new_id if _parent(connection, new_id) == old.id else None
            check_requeue(old.id, old.state)
            if isinstance(batch, str) and old.state is BatchState.RECORDED:
                _take_over(connection, old, now)
            fresh = _child(old) | {"id": new_id, "next_at": not_before}
            fresh |= {"reason": texts.clean(reason), "sealed_at": now, "recorded_at": now}
            connection.execute(sql.insert_batch(self._db).values(**fresh))
            child = lock_batch(connection, new_id)
            if child.parent != old.id or child.state is not BatchState.RECORDED:
                raise StateError(
                    f"Batch {new_id} cannot take requests from batch {old.id}: it is on its way "
                    "or came from elsewhere.",
                    {"batch_id": new_id},
                )
            _take_over(connection, child, now)
            attempts.note(connection, ids, failed or {})
            self._move_rows(connection, old, child, list(ids), tried=tried)
        return new_id

    def _movable(
        self,
        connection: Connection,
        batch_id: str,
        custom_ids: Collection[str] | None,
        claim: str | None,
        now: float,
    ) -> dict[str, int]:
        """The custom_ids to move and how often each was sent.

        They are locked in one order, so that two movers do not deadlock.
        """
        free = or_(_ROW.claim.is_(None), _ROW.claim_until <= now, _ROW.claim == claim)
        query = select(_ROW.custom_id, _ROW.attempt).where(unsettled(batch_id), free)
        if custom_ids is not None:
            custom_ids = sharing.with_followers(self._db, connection, batch_id, custom_ids)
            query = query.where(sql.among(self._db, _ROW.custom_id, custom_ids))
        locked = query.order_by(_ROW.custom_id).with_for_update()
        return {row.custom_id: row.attempt for row in connection.execute(locked)}

    def _move_rows(
        self,
        connection: Connection,
        old: BatchRow,
        child: BatchRow,
        ids: list[str],
        *,
        tried: bool,
    ) -> None:
        moved = update(REQUESTS).where(sql.among(self._db, _ROW.custom_id, ids))
        attempt = _ROW.attempt + (1 if tried else 0)
        connection.execute(
            moved.values(batch_id=child.id, attempt=attempt, claim=None, claim_until=None)
        )
        count_rows(connection, child.id)
        share = old.bytes * len(ids) // max(old.requests, 1)
        sized = update(BATCHES).where(BATCHES.c.id == child.id)
        connection.execute(sized.values(bytes=BATCHES.c.bytes + share))
        if old.state is BatchState.RECORDED and len(ids) < old.requests:
            # Nothing of it was sent yet: it is as large as what is left.
            count_rows(connection, old.id)
            rest = update(BATCHES).where(BATCHES.c.id == old.id)
            connection.execute(rest.values(bytes=BATCHES.c.bytes - share))


_INHERITED = ("lane", "account", "endpoint", "model", "version")


def _child(old: BatchRow) -> dict[str, Any]:
    """What a batch with requests of `old` starts with."""
    return {
        **{name: getattr(old, name) for name in _INHERITED},
        **dict.fromkeys(("requests", "bytes", "tokens", "fence"), 0),
        "state": BatchState.RECORDED,
        "parent": old.id,
    }


def _parent(connection: Connection, batch_id: str) -> str | None:
    query = select(BATCHES.c.parent).where(BATCHES.c.id == batch_id)
    return connection.execute(query).scalar_one_or_none()


def _take_over(connection: Connection, batch: BatchRow, now: float) -> None:
    """Makes sure that nobody is writing the file of a RECORDED batch whose requests change.

    Raises:
        StateError: Somebody holds it.
    """
    if batch.lease_until is None:
        return
    if batch.lease_until > now:
        raise StateError(
            f"Batch {batch.id} is held by {batch.lease_owner}, who may be writing its file: "
            "its requests cannot change.",
            {"batch_id": batch.id, "owner": batch.lease_owner},
        )
    # The holder is late, and would note a file that is out of date: it is superseded.
    passed = update(BATCHES).where(BATCHES.c.id == batch.id)
    ended = {"fence": batch.fence + 1, "lease_owner": None, "lease_until": None}
    connection.execute(passed.values(ended))
