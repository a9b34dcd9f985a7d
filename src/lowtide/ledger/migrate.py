"""Bringing the database's tables to the form of this release."""

from __future__ import annotations

import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select, text

from lowtide.clock import Clock
from lowtide.errors import LedgerUnavailable
from lowtide.ledger.engine import Database

VERSION_TABLE = "lowtide_version"
_LOCK = 0x6C6F77746964  # PostgreSQL advisory lock: "lowtid"
_LOCK_WAIT = "5s"
_AGAIN = 0.2
_PATIENCE = 120.0
_WAL_PATIENCE = 30.0


def migrate(database: Database, clock: Clock) -> None:
    """Migrates to this release. Several processes may do so at once: one works, the rest wait.

    Raises:
        LedgerUnavailable: The database cannot be reached.
    """
    if database.sqlite:
        _use_wal(database, clock)
    end = time.monotonic() + _PATIENCE
    while True:
        with database.read() as connection:
            if current(connection) == head():
                return
        try:
            _upgrade(database)
        except LedgerUnavailable as error:
            # Workers go on meanwhile. Where one of their transactions and this one wait for each
            # other, or a long one holds a table, this one gives way: all behind it would wait too.
            if "lock" not in error.message or time.monotonic() > end:
                raise
            clock.sleep(_AGAIN)


def _upgrade(database: Database) -> None:
    with database.write() as connection:
        if not database.sqlite:  # SQLite's write transaction is the lock already
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'"))
        command.upgrade(config(connection), "head")


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without a file; migrations run on `connection`."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made


def head() -> str | None:
    """The revision of this release."""
    return ScriptDirectory.from_config(config()).get_current_head()


def knows(revision: str) -> bool:
    """Whether `revision` is one of this release or of an earlier one."""
    known = ScriptDirectory.from_config(config()).walk_revisions()
    return any(script.revision == revision for script in known)


def current(connection: Connection) -> str | None:
    """The revision that the database is at; None = it has no tables of ours."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def _use_wal(database: Database, clock: Clock) -> None:
    """Switches the file to write-ahead logging, which it then keeps: readers and the writer
    do not wait for each other.
    """
    end = time.monotonic() + _WAL_PATIENCE
    while True:
        try:
            with database.engine.connect() as connection:
                raw = connection.connection.driver_connection
                if raw is not None:
                    # Three rows to a page where it was one and a half; a new file heeds it.
                    raw.execute("PRAGMA page_size=8192")
                    raw.execute("PRAGMA journal_mode=WAL")
                return
        except Exception as error:  # SQLite refuses at once while another process switches
            if "locked" not in str(error) or time.monotonic() > end:
                raise LedgerUnavailable(
                    f"The ledger {database.name} cannot be opened: {error}."
                ) from error
            clock.sleep(0.02)
