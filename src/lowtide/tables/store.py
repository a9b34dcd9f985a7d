"""What is known of a run, in a small database beside it: which rows were sent, which came back."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS rows (n INTEGER PRIMARY KEY, ok INTEGER, value BLOB);
CREATE INDEX IF NOT EXISTS open_rows ON rows (n) WHERE ok IS NULL;
"""


class Store:
    """The database of one run; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, timeout=30, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Closes the database."""
        self._db.close()

    def fact(self, name: str) -> Any:
        """What was noted under `name`, None for nothing."""
        with self._lock:
            found = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else orjson.loads(found[0])

    def note(self, **facts: Any) -> None:
        """Notes JSON values by name, at once."""
        with self._lock:
            self._db.executemany(
                "INSERT OR REPLACE INTO facts VALUES (?, ?)",
                [(name, orjson.dumps(value, default=str)) for name, value in facts.items()],
            )

    def sent(self, numbers: Iterable[int], empty: Iterable[int], upto: int) -> None:
        """Notes which rows were sent, which have no text, and that all before `upto` are done."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR IGNORE INTO rows (n) VALUES (?)", [(number,) for number in numbers]
            )
            self._db.executemany(
                "INSERT OR IGNORE INTO rows VALUES (?, 0, ?)",
                [(number, orjson.dumps("The row has no text.")) for number in empty],
            )
            self._db.execute(
                "INSERT OR REPLACE INTO facts VALUES ('upto', ?)", (orjson.dumps(upto),)
            )
            self._db.execute("COMMIT")

    def came(self, results: Iterable[tuple[int, bool, Any]]) -> None:
        """Notes (row, whether it is an answer, answer or error)."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "UPDATE rows SET ok = ?, value = ? WHERE n = ?",
                [(int(ok), orjson.dumps(value, default=str), n) for n, ok, value in results],
            )
            self._db.execute("COMMIT")

    def waiting(self, after: int, limit: int) -> list[int]:
        """Rows that were sent and have not come back, from the one after `after`."""
        with self._lock:
            found = self._db.execute(
                "SELECT n FROM rows WHERE ok IS NULL AND n > ? ORDER BY n LIMIT ?", (after, limit)
            )
            return [row[0] for row in found]

    def counts(self) -> tuple[int, int, int]:
        """(sent, answered, failed) rows; those without text count as sent and failed."""
        with self._lock:
            found = self._db.execute(
                "SELECT count(*), coalesce(sum(ok = 1), 0), coalesce(sum(ok = 0), 0) FROM rows"
            ).fetchone()
        return int(found[0]), int(found[1]), int(found[2])

    def common_error(self) -> tuple[str, int] | None:
        """The error that most rows have, and how many do; None when no row has one."""
        with self._lock:
            found = self._db.execute(
                "SELECT value, count(*) FROM rows WHERE ok = 0 GROUP BY value"
                " ORDER BY count(*) DESC, min(n) LIMIT 1"
            ).fetchone()
        return None if found is None else (str(orjson.loads(found[0])), int(found[1]))

    def results(self, page: int = 1000) -> Iterator[tuple[int, bool | None, Any]]:
        """(row, ok, value) of every row in order; ok is None where nothing came back yet."""
        after = -1
        while True:
            with self._lock:
                found = self._db.execute(
                    "SELECT n, ok, value FROM rows WHERE n > ? ORDER BY n LIMIT ?", (after, page)
                ).fetchall()
            for number, ok, value in found:
                yield number, None if ok is None else bool(ok), value and orjson.loads(value)
            if len(found) < page:
                return
            after = found[-1][0]
