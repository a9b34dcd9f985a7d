"""The ledger: the SQL database that holds what is sent, and what came of it."""

from __future__ import annotations

from lowtide.clock import Clock
from lowtide.errors import LowtideError
from lowtide.ledger import migrate
from lowtide.ledger.attempts import AttemptQueries
from lowtide.ledger.batches import BatchVerbs
from lowtide.ledger.claims import ClaimVerbs
from lowtide.ledger.engine import Database
from lowtide.ledger.enqueued import EnqueuedQueries
from lowtide.ledger.habits import HabitQueries
from lowtide.ledger.late import LateVerbs
from lowtide.ledger.lookups import Lookups
from lowtide.ledger.money import MoneyQueries
from lowtide.ledger.outbox import OutboxVerbs
from lowtide.ledger.paid import PaidVerbs
from lowtide.ledger.purge import PurgeVerbs
from lowtide.ledger.record import RecordVerbs
from lowtide.ledger.replays import ReplayQueries
from lowtide.ledger.requests import RequestQueries
from lowtide.ledger.requeue import RequeueVerbs
from lowtide.ledger.sharing import SharingVerbs
from lowtide.ledger.spending import SpendVerbs


class Ledger(
    RecordVerbs,
    BatchVerbs,
    RequeueVerbs,
    ClaimVerbs,
    RequestQueries,
    MoneyQueries,
    EnqueuedQueries,
    LateVerbs,
    PaidVerbs,
    SpendVerbs,
    HabitQueries,
    AttemptQueries,
    SharingVerbs,
    Lookups,
    ReplayQueries,
    OutboxVerbs,
    PurgeVerbs,
):
    """Batches, requests and money, in SQLite or PostgreSQL.

    One verb per change of state, each one transaction that is safe to run again. It connects
    when first used, may be shared by threads and greenlets and kept across a fork. Every verb
    raises `LedgerUnavailable` when the database cannot be reached: the same call may succeed
    later, and nothing of it was written unless the connection was lost while it was being
    committed.

    Args:
        url: `sqlite:////path/ledger.db` or `postgresql://user@host/name`.
        clock: Where times and the ends of leases come from.

    Raises:
        SettingsError: The URL cannot be used, or its driver is not installed.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self._db = Database(url)
        self._clock = clock

    @property
    def name(self) -> str:
        """The database's URL without its password."""
        return self._db.name

    def create(self) -> None:
        """Makes the tables or brings them to this release; any number of processes may at once."""
        migrate.migrate(self._db, self._clock)

    def check(self) -> list[str]:
        """What is wrong with the database, a line each, with what to do; empty = nothing."""
        try:
            with self._db.read() as connection:
                found = migrate.current(connection)
        except LowtideError as error:
            return [error.message]
        if found == migrate.head():
            return []
        if found is None:
            problem = "has no tables yet; start a worker, it makes them"
        elif migrate.knows(found):
            problem = f"is of an older release ({found}); start a worker of this one, it migrates"
        else:
            problem = f"is of a newer release ({found}); update lowtide here too"
        return [f"The ledger {self.name} {problem}."]

    def close(self) -> None:
        """Closes the connections of this process; the next verb opens them again."""
        self._db.close()
