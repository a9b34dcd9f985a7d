"""The simulator's memory: one SQLite database in WAL mode, which survives ``kill -9``.

Each thread has its own connection, so the event loop reads while the engine writes. Every public
method is one transaction.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from lowtide.simulator.records import BatchRecord, FileRecord, Usage

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, account TEXT NOT NULL,
    bytes INTEGER NOT NULL, created_at REAL NOT NULL, expires_at REAL, filename TEXT NOT NULL,
    purpose TEXT NOT NULL, status TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, account TEXT NOT NULL,
    live INTEGER NOT NULL, created_at REAL NOT NULL, due_at REAL NOT NULL, cancel_at REAL,
    doc BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS batches_due ON batches (due_at) WHERE live;
CREATE INDEX IF NOT EXISTS batches_created ON batches (account, created_at);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, mode TEXT NOT NULL, batch_id TEXT, custom_id TEXT,
    body_hash TEXT NOT NULL, model TEXT, status INTEGER NOT NULL, billed INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS hooks (
    id TEXT PRIMARY KEY, url TEXT NOT NULL, secret TEXT NOT NULL, events TEXT NOT NULL,
    account TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, hook_id TEXT NOT NULL,
    body BLOB NOT NULL, created_at REAL NOT NULL, next_at REAL, attempts INTEGER NOT NULL,
    status INTEGER, forged INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (next_at) WHERE next_at IS NOT NULL;
"""
_FILE_BY_ID = """
SELECT id, account, bytes, created_at, expires_at, filename, purpose, status
FROM files WHERE id = ?"""
_FILES_DOWN = """
SELECT id, account, bytes, created_at, expires_at, filename, purpose, status
FROM files WHERE account = ? AND (? IS NULL OR purpose = ?) AND (? IS NULL OR seq < ?)
ORDER BY seq DESC LIMIT ?"""
_FILES_UP = """
SELECT id, account, bytes, created_at, expires_at, filename, purpose, status
FROM files WHERE account = ? AND (? IS NULL OR purpose = ?) AND (? IS NULL OR seq > ?)
ORDER BY seq LIMIT ?"""
_ADD_FILE = """
INSERT INTO files (id, account, bytes, created_at, expires_at, filename, purpose, status)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_SEQ = {
    "files": "SELECT seq FROM files WHERE id = ?",
    "batches": "SELECT seq FROM batches WHERE id = ?",
}


class Run(NamedTuple):
    """One execution of a request: what was paid for, or why not.

    ``mode`` is ``batch``, ``sync`` or ``flex``; ``status`` the HTTP status of its answer;
    ``billed`` 1 when it is paid for.
    """

    mode: str
    batch_id: str | None
    custom_id: str | None
    body_hash: str
    model: str | None
    status: int
    billed: int
    input_tokens: int
    output_tokens: int


class Store:
    """All verbs on files, batches and runs.

    Args:
        path: the database file; it is made when absent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self.db.executescript(_SCHEMA)

    @property
    def db(self) -> sqlite3.Connection:
        """This thread's connection."""
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = sqlite3.connect(
                self._path, timeout=60, isolation_level=None, check_same_thread=False
            )
            db.execute("PRAGMA journal_mode=WAL")
            # A killed process loses nothing in NORMAL; only a power cut could.
            db.execute("PRAGMA synchronous=NORMAL")
            with self._lock:
                self._open.append(db)
            self._local.db = db
        return db

    def close(self) -> None:
        """Close every thread's connection; call it when the threads have ended."""
        with self._lock:
            for db in self._open:
                db.close()
            self._open.clear()
        self._local = threading.local()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all of it or nothing."""
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    # ---- small values
    def get_meta(self, key: str) -> Any:
        """A JSON value, or None."""
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else orjson.loads(row[0])

    def set_meta(self, key: str, value: Any) -> None:
        """Keep a JSON value."""
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, orjson.dumps(value)))

    # ---- files
    def add_file(self, file: FileRecord) -> None:
        """Record a file whose content is on disk."""
        _insert_file(self.db, file)

    def file(self, file_id: str, account: str | None = None) -> FileRecord | None:
        """The file, when it is there (and belongs to ``account``, when one is given)."""
        row = self.db.execute(_FILE_BY_ID, (file_id,)).fetchone()
        file = None if row is None else FileRecord(*row)
        return file if file and account in (None, file.account) else None

    def delete_file(self, file_id: str) -> None:
        """Forget a file."""
        self.db.execute("DELETE FROM files WHERE id = ?", (file_id,))

    def expired_files(self, now: float) -> list[str]:
        """Ids of the files whose time is over."""
        rows = self.db.execute("SELECT id FROM files WHERE expires_at <= ?", (now,))
        return [row[0] for row in rows]

    def next_file_expiry(self) -> float | None:
        """When the next file expires."""
        row = self.db.execute("SELECT min(expires_at) FROM files").fetchone()
        return row[0] if row else None

    def list_files(
        self, account: str, after: str | None, limit: int, order: str, purpose: str | None
    ) -> tuple[list[FileRecord], bool]:
        """A page of files and whether more follow.

        Raises:
            KeyError: when ``after`` names no file.
        """
        seq = self._seq("files", after) if after else None
        rows = self.db.execute(
            _FILES_DOWN if order == "desc" else _FILES_UP,
            (account, purpose, purpose, seq, seq, limit + 1),
        ).fetchall()
        return [FileRecord(*row) for row in rows[:limit]], len(rows) > limit

    # ---- batches
    def add_batch(self, batch: BatchRecord, plan: Callable[[BatchRecord], None]) -> None:
        """Record a new batch; ``plan`` completes it when its ``seq`` is known."""
        with self.transaction() as db:
            cursor = db.execute(
                "INSERT INTO batches (id, account, live, created_at, due_at, doc)"
                " VALUES (?, ?, 1, ?, ?, '')",
                (batch.id, batch.account, batch.created_at, batch.created_at),
            )
            batch.seq = int(cursor.lastrowid or 0)
            plan(batch)
            _update_batch(db, batch)

    def batch(self, batch_id: str, account: str | None = None) -> BatchRecord | None:
        """The batch, when it is there (and belongs to ``account``, when one is given)."""
        row = self.db.execute(
            "SELECT seq, cancel_at, doc FROM batches WHERE id = ?", (batch_id,)
        ).fetchone()
        batch = None if row is None else _load(row)
        return batch if batch and account in (None, batch.account) else None

    def in_use(self, file_id: str) -> bool:
        """Does a live batch still read this input file?"""
        row = self.db.execute(
            "SELECT 1 FROM batches WHERE live AND json_extract(doc, '$.input_file_id') = ?",
            (file_id,),
        ).fetchone()
        return row is not None

    def enqueued_tokens(self, account: str, model: str) -> int:
        """Input tokens of the account's batches of a model that are in progress."""
        row = self.db.execute(
            "SELECT sum(json_extract(doc, '$.enqueued_tokens')) FROM batches"
            " WHERE live AND account = ? AND json_extract(doc, '$.model') = ?",
            (account, model),
        ).fetchone()
        return int(row[0] or 0)

    def due_batches(self, now: float) -> list[BatchRecord]:
        """The batches for which there may be something to do."""
        rows = self.db.execute(
            "SELECT seq, cancel_at, doc FROM batches WHERE live AND due_at <= ?", (now,)
        )
        return [_load(row) for row in rows]

    def next_due(self) -> float | None:
        """When there will be something to do for a batch, None when there are none."""
        row = self.db.execute("SELECT min(due_at) FROM batches WHERE live").fetchone()
        return None if row[0] is None else float(row[0])

    def postpone(self, batch: BatchRecord, until: float) -> None:
        """Nothing is to be done before ``until``, unless a wish to cancel has come meanwhile."""
        self.db.execute(
            "UPDATE batches SET due_at = ? WHERE id = ? AND cancel_at IS ?",
            (until, batch.id, batch.cancel_at),
        )

    def cancel_wish(self, batch_id: str) -> float | None:
        """When it was wished that the batch be cancelled, None when it was not."""
        row = self.db.execute("SELECT cancel_at FROM batches WHERE id = ?", (batch_id,)).fetchone()
        return None if row is None else row[0]

    def list_batches(
        self, account: str | None, after: str | None, limit: int
    ) -> tuple[list[BatchRecord], bool]:
        """A page of batches, newest first, and whether more follow.

        Raises:
            KeyError: when ``after`` names no batch.
        """
        top = self._seq("batches", after) if after else 1 << 62
        rows = self.db.execute(
            "SELECT seq, cancel_at, doc FROM batches WHERE seq < ? AND (? IS NULL OR account = ?)"
            " ORDER BY seq DESC LIMIT ?",
            (top, account, account, limit + 1),
        ).fetchall()
        return [_load(row) for row in rows[:limit]], len(rows) > limit

    def creations_since(self, account: str, since: float) -> int:
        """How many batches the account created after ``since``."""
        row = self.db.execute(
            "SELECT count(*) FROM batches WHERE account = ? AND created_at > ?", (account, since)
        ).fetchone()
        return int(row[0])

    def request_cancel(self, batch_id: str, now: float) -> None:
        """Note the wish to cancel; the engine acts on it. The first wish counts."""
        self.db.execute(
            "UPDATE batches SET cancel_at = coalesce(cancel_at, ?), due_at = min(due_at, ?)"
            " WHERE id = ? AND live",
            (now, now, batch_id),
        )

    def save_progress(self, batch: BatchRecord, runs: Iterable[Run] = ()) -> None:
        """Keep a batch as it is now, with the runs that brought it here, in one transaction."""
        with self.transaction() as db:
            _insert_runs(db, runs)
            _update_batch(db, batch)

    def finish(
        self,
        batch: BatchRecord,
        files: Iterable[FileRecord],
        also: Callable[[sqlite3.Connection], None],
        *,
        unless_cancelled: bool,
    ) -> bool:
        """Bring a batch to its end and make its result files visible, in one transaction.

        ``also`` adds what has to be true together with it (the webhooks to send). With
        ``unless_cancelled`` nothing happens, and the answer is False, when a wish to cancel came
        in between.
        """
        with self.transaction() as db:
            if unless_cancelled:
                row = db.execute(
                    "SELECT cancel_at FROM batches WHERE id = ?", (batch.id,)
                ).fetchone()
                if row[0] is not None:
                    return False
            for file in files:
                _insert_file(db, file)
            _update_batch(db, batch)
            also(db)
        return True

    # ---- runs
    def add_run(self, run: Run) -> None:
        """Record a synchronous execution."""
        _insert_runs(self.db, (run,))

    def _seq(self, table: str, row_id: str) -> int:
        row = self.db.execute(_SEQ[table], (row_id,)).fetchone()
        if row is None:
            raise KeyError(row_id)
        return int(row[0])


def _insert_file(db: sqlite3.Connection, file: FileRecord) -> None:
    values = (
        file.id, file.account, file.bytes, file.created_at, file.expires_at, file.filename,
        file.purpose, file.status,
    )  # fmt: skip
    db.execute(_ADD_FILE, values)


def _insert_runs(db: sqlite3.Connection, runs: Iterable[Run]) -> None:
    db.executemany(
        "INSERT INTO runs (mode, batch_id, custom_id, body_hash, model, status, billed,"
        " input_tokens, output_tokens) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        runs,
    )


def _update_batch(db: sqlite3.Connection, batch: BatchRecord) -> None:
    db.execute(
        "UPDATE batches SET live = ?, doc = ? WHERE id = ?",
        (int(batch.live), _dump(batch), batch.id),
    )


def _dump(batch: BatchRecord) -> bytes:
    return orjson.dumps(asdict(batch))


def _load(row: tuple[int, float | None, bytes]) -> BatchRecord:
    doc = orjson.loads(row[2])
    doc["usage"] = Usage(**doc["usage"])
    doc["seq"], doc["cancel_at"] = row[0], row[1]
    return BatchRecord(**doc)
