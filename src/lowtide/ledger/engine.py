"""Connections to the ledger's database: one pool per process, one transaction per verb."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lowtide.errors import LedgerUnavailable, SettingsError

_BUSY_MS = 30_000
_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}
_READ_ONLY = "25006"
# Besides the driver's OperationalErrors: the server is read-only (a standby, a managed disk that is
# full), or its time limits ended an idle or long transaction.
_PASSING = frozenset({_READ_ONLY, "25P03", "25P04"})
_databases: weakref.WeakSet[Database] = weakref.WeakSet()


class Database:
    """A SQLite file or a PostgreSQL server; connects when first used.

    Safe to share between threads and greenlets, and to keep across a fork: the child opens
    connections of its own and leaves the parent's alone.

    Args:
        url: SQLAlchemy URL: `sqlite:////path/ledger.db` or `postgresql://user@host/name`.

    Raises:
        SettingsError: The URL cannot be used, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self._inherited: list[Engine] = []
        self._engine: Engine | None = None
        self.start_afresh()
        _databases.add(self)

    def start_afresh(self) -> None:
        """Leaves the connections and locks of the parent alone: this process is its fork."""
        if self._engine is not None:
            self._inherited.append(self._engine)  # dropped, it would be closed for the parent too
        self._engine = None
        self._opening = threading.Lock()
        self._writing = threading.Lock()

    @property
    def engine(self) -> Engine:
        """The pool of this process."""
        with self._opening:
            if self._engine is None:
                self._engine = _open(self.url, sqlite=self.sqlite)
            return self._engine

    def close(self) -> None:
        """Closes the pool; the next use opens it again."""
        with self._opening:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction that only reads.

        Raises:
            LedgerUnavailable: The database cannot be reached.
        """
        with self._typed_errors(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: all of it is kept when the block ends, nothing when it raises.

        Raises:
            LedgerUnavailable: The database cannot be reached, or stayed locked.
        """
        with self._typed_errors(), self._one_writer(), self.engine.connect() as plain:
            connection = plain.execution_options(lowtide_write=True)
            with connection.begin():
                yield connection

    @contextlib.contextmanager
    def _one_writer(self) -> Iterator[None]:
        # SQLite waits for its lock inside C. Under gevent that would stop the very greenlet
        # that holds it; so the writers of one process queue up here, where greenlets can switch.
        if not self.sqlite:
            yield
            return
        if not self._writing.acquire(timeout=_BUSY_MS / 1000):
            raise LedgerUnavailable(
                f"The ledger {self.name} stayed locked by this process; work waits."
            )
        try:
            yield
        finally:
            self._writing.release()

    @property
    def name(self) -> str:
        """The URL without its password, for people."""
        return self.url.render_as_string(hide_password=True)

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not _passing(error):
                raise
            if _sqlstate(error) == _READ_ONLY:
                # A standby, perhaps since a moment ago: who took its place is found by connecting.
                self.close()
            reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
            advice = "; restart a worker, which brings it up to date" if _outdated(error) else ""
            raise LedgerUnavailable(
                f"The ledger {self.name} cannot be used: {reason}; work waits{advice}.",
                {"database": self.name},
            ) from error


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SettingsError("LOWTIDE_DATABASE_URL is not a database URL.") from None
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None:
        raise SettingsError(
            f"LOWTIDE_DATABASE_URL names {parsed.get_backend_name()}; the ledger works with "
            "sqlite:///path and postgresql://user@host/name."
        )
    return parsed.set(drivername=driver)


def _open(url: URL, *, sqlite: bool) -> Engine:
    if sqlite:
        _make_folder(url)
        engine = create_engine(url, connect_args={"timeout": _BUSY_MS / 1000})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return create_engine(
            url,
            pool_pre_ping=True,
            pool_recycle=1800,
            connect_args={"connect_timeout": 10, "application_name": "lowtide"},
        )
    except ModuleNotFoundError:
        raise SettingsError(
            "LOWTIDE_DATABASE_URL names PostgreSQL, whose driver is missing: "
            'pip install "lowtide[postgres]".'
        ) from None


def _make_folder(url: URL) -> None:
    if not url.database or url.database == ":memory:":
        return
    folder = Path(url.database).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerUnavailable(
            f"The ledger's folder {folder} cannot be made: {error.strerror}; work waits."
        ) from error


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours to send, see _begin_sqlite
    for pragma in (
        f"busy_timeout={_BUSY_MS}",
        "foreign_keys=ON",
        # Synced at every commit: Redis forgets a batch once it is recorded here, and the
        # intent to create must outlive a power cut. It costs one sync per batch or slice.
        "synchronous=FULL",
        "cache_size=-8000",
        # A batch of 100 MB passes through the log; it shall not keep that size.
        "journal_size_limit=67108864",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE takes the write lock at once; a transaction that reads first and asks for the
    # lock later is refused without waiting when another wrote in between.
    write = connection.get_execution_options().get("lowtide_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _passing(error: Exception) -> bool:
    """Whether the same call may succeed later: no connection, a lock, a full disk, a server that
    is read-only, no table yet.
    """
    if isinstance(error, PoolTimeout) or _outdated(error) or _sqlstate(error) in _PASSING:
        return True
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        error = error.orig if isinstance(error.orig, Exception) else error
    return any(
        kind.__name__ in ("OperationalError", "InterfaceError")
        and kind.__module__.partition(".")[0] in ("sqlite3", "psycopg")
        for kind in type(error).__mro__
    )


def _sqlstate(error: Exception) -> str | None:
    """PostgreSQL's code of an error."""
    return getattr(getattr(error, "orig", error), "sqlstate", None)


def _outdated(error: Exception) -> bool:
    """Whether a table or column is missing: the database is of an older release, or emptied."""
    known = getattr(error, "orig", None)
    lacks = ("no such table", "no such column", "has no column named")
    return type(known).__name__ in ("UndefinedTable", "UndefinedColumn") or (
        type(known).__name__ == "OperationalError" and any(each in str(known) for each in lacks)
    )


def _forked() -> None:
    for database in list(_databases):
        database.start_afresh()


os.register_at_fork(after_in_child=_forked)
