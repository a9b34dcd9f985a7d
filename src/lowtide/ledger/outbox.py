"""The outbox: results that others than the result backend are to be told.

An entry is written in the transaction that notes the outcome, and stays until its destination has
accepted it. Whoever sends some takes them for a time: they are due again when that is over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import Update

from lowtide.carried import OWN
from lowtide.clock import Clock
from lowtide.ledger import sql
from lowtide.ledger.engine import Database
from lowtide.ledger.tables import OUTBOX

_ROW = OUTBOX.c
_LONGEST_ERROR = 300


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A result that a destination is to be told.

    Attributes:
        destination: Name of the destination.
        custom_id: The request that ended the task.
        blob: What is told, as `messages.pack` makes it.
        batch_id: The request's batch; None for a task that asked nothing.
        due: Epoch seconds before which it stays; None for at once.
    """

    destination: str
    custom_id: str
    blob: bytes = field(repr=False)
    batch_id: str | None = None
    due: float | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """An entry that its holder is to send. `attempts` counts those before this one."""

    custom_id: str
    created_at: float
    attempts: int
    blob: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Postponed:
    """An entry that was not accepted: when to try again (epoch seconds), and why it was not."""

    custom_id: str
    at: float
    error: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for one destination.

    Attributes:
        waiting: How many entries.
        since: When the oldest was written, epoch seconds.
        failing: How many of them were tried and not accepted.
        error: Why one of these was not.
    """

    destination: str
    waiting: int
    since: float
    failing: int
    error: str | None


class OutboxVerbs:
    """The part of the ledger that is about the outbox; see `Ledger`."""

    _db: Database
    _clock: Clock

    def post(self, messages: Sequence[NewMessage]) -> None:
        """Writes entries of tasks that ended without a request; those that are there stay."""
        with self._db.write() as connection:
            write(self._db, connection, messages, self._clock.now())

    def post_again(self, messages: Sequence[NewMessage]) -> None:
        """Writes entries, in place of those that are there: they are due at once."""
        now = self._clock.now()
        insert = sqlite.insert if self._db.sqlite else postgresql.insert
        statement = insert(OUTBOX)
        fresh = ("batch_id", "next_at", "attempts", "claim", "error", "blob")
        statement = statement.on_conflict_do_update(
            index_elements=["destination", "custom_id"],
            set_={name: statement.excluded[name] for name in fresh},
        )
        if messages:
            with self._db.write() as connection:
                connection.execute(statement, [_values(message, now) for message in messages])

    def take(self, destination: str, owner: str, limit: int, ttl: float) -> list[Message]:
        """Takes entries that are due, the longest due first, for `ttl` seconds.

        Args:
            destination: Whose.
            owner: Who takes them: what the other verbs ask for, so unique to this run.
            limit: How many at most.
            ttl: Seconds after which another may take them.
        """
        now = self._clock.now()
        query = (
            select(_ROW.custom_id, _ROW.created_at, _ROW.attempts, _ROW.blob)
            .where(_ROW.destination == destination, _ROW.next_at <= now)
            .order_by(_ROW.next_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        with self._db.write() as connection:
            found = [Message(*row) for row in connection.execute(query)]
            taken = self._among(destination, [each.custom_id for each in found])
            connection.execute(taken.values(claim=owner, next_at=now + ttl))
        return found

    def sent(self, destination: str, owner: str, custom_ids: Collection[str]) -> int:
        """Deletes entries that were accepted; returns how many `owner` still held."""
        statement = delete(OUTBOX).where(
            _ROW.destination == destination,
            sql.among(self._db, _ROW.custom_id, custom_ids),
            _ROW.claim == owner,
        )
        with self._db.write() as connection:
            return connection.execute(statement).rowcount

    def postpone_messages(self, destination: str, owner: str, later: Iterable[Postponed]) -> None:
        """Notes why entries were not accepted, and when each is due again."""
        rows = [
            {"which": each.custom_id, "at": each.at, "why": each.error[:_LONGEST_ERROR]}
            for each in later
        ]
        statement = (
            update(OUTBOX)
            .where(
                _ROW.destination == destination,
                _ROW.custom_id == bindparam("which"),
                _ROW.claim == owner,
            )
            .values(
                next_at=bindparam("at"),
                error=bindparam("why"),
                attempts=_ROW.attempts + 1,
                claim=None,
            )
        )
        if rows:
            with self._db.write() as connection:
                connection.execute(statement, rows)

    def give_back(self, destination: str, owner: str, custom_ids: Collection[str]) -> None:
        """Lets entries that were not tried be due at once."""
        statement = self._among(destination, custom_ids).where(_ROW.claim == owner)
        with self._db.write() as connection:
            connection.execute(statement.values(claim=None, next_at=self._clock.now()))

    def _among(self, destination: str, custom_ids: Collection[str]) -> Update:
        return update(OUTBOX).where(
            _ROW.destination == destination, sql.among(self._db, _ROW.custom_id, custom_ids)
        )

    def next_message(self, destination: str) -> float | None:
        """When the next entry of a destination is due, epoch seconds; None when it has none."""
        query = select(func.min(_ROW.next_at)).where(_ROW.destination == destination)
        with self._db.read() as connection:
            found = connection.execute(query).scalar_one()
        return None if found is None else float(found)

    def next_messages(self) -> Mapping[str, float]:
        """When the next entry of each destination that has any is due, epoch seconds.

        The ledger's own are left out.
        """
        query = (
            select(_ROW.destination, func.min(_ROW.next_at))
            .where(_ROW.destination < OWN)
            .group_by(_ROW.destination)
        )
        with self._db.read() as connection:
            return {row[0]: float(row[1]) for row in connection.execute(query)}

    def backlogs(self, destination: str | None = None) -> list[Backlog]:
        """What waits, by destination; those for whom nothing waits are left out.

        Args:
            destination: Only this one; all but the ledger's own if left out.
        """
        which = _ROW.destination < OWN if destination is None else _ROW.destination == destination
        query = (
            select(
                _ROW.destination,
                func.count(),
                func.min(_ROW.created_at),
                func.count(_ROW.error),
                func.max(_ROW.error),
            )
            .where(which)
            .group_by(_ROW.destination)
            .order_by(_ROW.destination)
        )
        with self._db.read() as connection:
            return [Backlog(*row) for row in connection.execute(query)]

    def blobs_for(self, destination: str, custom_ids: Collection[str]) -> dict[str, bytes]:
        """custom_id → blob of those that wait for a destination."""
        query = select(_ROW.custom_id, _ROW.blob).where(
            _ROW.destination == destination, sql.among(self._db, _ROW.custom_id, custom_ids)
        )
        with self._db.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def drop_messages(self, destination: str) -> int:
        """Deletes all that waits for a destination; returns how many entries."""
        with self._db.write() as connection:
            dropped = delete(OUTBOX).where(_ROW.destination == destination)
            return connection.execute(dropped).rowcount


def write(db: Database, connection: Connection, messages: Sequence[NewMessage], now: float) -> None:
    """Writes entries in a transaction; those that are there already stay as they are."""
    insert = sqlite.insert if db.sqlite else postgresql.insert
    statement = insert(OUTBOX).on_conflict_do_nothing(index_elements=["destination", "custom_id"])
    if messages:
        connection.execute(statement, [_values(message, now) for message in messages])


def _values(message: NewMessage, now: float) -> dict[str, object]:
    return {
        "destination": message.destination,
        "custom_id": message.custom_id,
        "batch_id": message.batch_id,
        "created_at": now,
        "next_at": now if message.due is None else message.due,
        "attempts": 0,
        "claim": None,
        "error": None,
        "blob": message.blob,
    }
