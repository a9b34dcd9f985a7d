"""A database that cannot be used: one typed error, and work goes on when it is back."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from lowtide.clock import SimulatedClock
from lowtide.errors import LedgerUnavailable, SettingsError
from lowtide.ledger import BatchState, Lease, Ledger, NewRequest, Outcome, Purged, RequestState
from lowtide.ledger import engine as engine_module
from lowtide.ledger.tables import REQUESTS
from tests.ledger.support import new_batch, new_request, record
from tests.plugins.postgres import PostgresServer, started_postgres

LEASE = Lease("b1", 1, "w1", 1.0)
DONE = [Outcome("t1.0.0", RequestState.DELIVERED)]
VERBS: dict[str, Callable[[Ledger], object]] = {
    "create": lambda ledger: ledger.create(),
    "record": lambda ledger: record(ledger, "b2", ["t2.0.0"]),
    "lease": lambda ledger: ledger.lease("b1", "w1", 60),
    "renew": lambda ledger: ledger.renew(LEASE, 60),
    "release": lambda ledger: ledger.release(LEASE),
    "move": lambda ledger: ledger.move(LEASE, BatchState.UPLOADED),
    "requeue": lambda ledger: ledger.requeue("b1", None, reason="test"),
    "claim": lambda ledger: ledger.claim("b1", ["t1.0.0"], "d1", 60),
    "unclaim": lambda ledger: ledger.unclaim(["t1.0.0"], "d1"),
    "settle": lambda ledger: ledger.settle("d1", DONE),
    "close_if_done": lambda ledger: ledger.close_if_done("b1"),
    "batch": lambda ledger: ledger.batch("b1"),
    "batches": lambda ledger: ledger.batches(),
    "by_provider_id": lambda ledger: ledger.by_provider_id("x"),
    "due": lambda ledger: ledger.due(),
    "lines": lambda ledger: list(ledger.lines("b1")),
    "ids": lambda ledger: ledger.ids("b1"),
    "undelivered": lambda ledger: ledger.undelivered("b1"),
    "attempt": lambda ledger: ledger.attempt("b1"),
    "task": lambda ledger: ledger.task("t1"),
    "costs": lambda ledger: ledger.costs("day"),
    "totals": lambda ledger: ledger.totals(),
    "turnarounds": lambda ledger: ledger.turnarounds(),
    "purge": lambda ledger: ledger.purge(1.0),
}
WRITES = ["record", "lease", "move", "requeue", "claim", "settle", "close_if_done"]


@pytest.fixture(scope="module")
def restarted() -> Iterator[PostgresServer]:
    server = started_postgres()
    yield server
    server.remove()


def test_postgres_away_and_back(restarted: PostgresServer) -> None:
    ledger = Ledger(restarted.url(), SimulatedClock())
    ledger.create()
    record(ledger, "b1", ["t1.0.0"])
    restarted.stop()

    for name, verb in VERBS.items():
        with pytest.raises(LedgerUnavailable, match=r"cannot be used: .*; work waits") as caught:
            verb(ledger)
        assert "\n" not in str(caught.value), name
    assert len(ledger.check()) == 1

    restarted.start()
    assert ledger.ids("b1") == {"t1.0.0"}
    assert record(ledger, "b2", ["t2.0.0"]).added == 1
    ledger.close()


def test_postgres_read_only_and_back(restarted: PostgresServer) -> None:
    restarted.execute("CREATE DATABASE standby")
    ledger = Ledger(restarted.url("standby"), SimulatedClock())
    ledger.create()
    record(ledger, "b3", ["t3.0.0"])
    restarted.execute("ALTER DATABASE standby SET default_transaction_read_only = on")
    ledger.close()

    for verb in WRITES:
        with pytest.raises(LedgerUnavailable, match=r"read-only transaction; work waits"):
            VERBS[verb](ledger)
    assert ledger.ids("b3") == {"t3.0.0"}, "reading goes on"

    restarted.execute("ALTER DATABASE standby RESET default_transaction_read_only")
    with pytest.raises(LedgerUnavailable):
        record(ledger, "b4", ["t4.0.0"])  # by the connection that read
    assert record(ledger, "b4", ["t4.0.0"]).added == 1
    ledger.close()


def test_postgres_restarted_in_mid_transaction(restarted: PostgresServer) -> None:
    ledger = Ledger(restarted.url(), SimulatedClock())
    ledger.create()

    def lines() -> Iterator[NewRequest]:
        for n in range(20_000):
            if n == 10_000:
                restarted.stop()
                restarted.start()
            yield new_request(f"r{n}.0.0")

    with pytest.raises(LedgerUnavailable):
        ledger.record(new_batch("b9"), lines())

    assert ledger.batch("b9") is None
    assert record(ledger, "b9", [f"r{n}.0.0" for n in range(20_000)]).added == 20_000
    ledger.close()


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setattr(engine_module, "_BUSY_MS", 50)
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", SimulatedClock())
    ledger.create()
    record(ledger, "b1", ["t1.0.0"])
    yield ledger
    ledger.close()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


@pytest.mark.parametrize("name", WRITES)
def test_sqlite_locked_by_another_process(sqlite: Ledger, tmp_path: Path, name: str) -> None:
    with locked(tmp_path / "ledger.db"):
        with pytest.raises(LedgerUnavailable, match="database is locked; work waits"):
            VERBS[name](sqlite)
        assert sqlite.ids("b1") == {"t1.0.0"}, "reading goes on"

    with contextlib.suppress(ValueError):
        VERBS["lease"](sqlite)
    assert sqlite.batch("b1") is not None


def test_a_purge_that_is_locked_out_deletes_later(sqlite: Ledger, tmp_path: Path) -> None:
    record(sqlite, "empty", ["t1.0.0"])
    with locked(tmp_path / "ledger.db"), pytest.raises(LedgerUnavailable, match="is locked"):
        sqlite.purge(math.inf)

    assert sqlite.purge(math.inf) == Purged(batches=1, requests=0, kept=0)


def test_sqlite_on_a_full_disk(sqlite: Ledger) -> None:
    with sqlite._db.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 10}")

    with pytest.raises(LedgerUnavailable, match="disk is full; work waits"):
        record(sqlite, "b2", [f"t{n}.0.0" for n in range(5000)])

    assert sqlite.batch("b2") is None
    with sqlite._db.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert record(sqlite, "b2", [f"x{n}.0.0" for n in range(5000)]).added == 5000


def test_sqlite_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    ledger = Ledger(f"sqlite:///{tmp_path}/file/ledger.db", SimulatedClock())

    with pytest.raises(LedgerUnavailable, match=r"folder .*file cannot be made"):
        ledger.create()


def test_sqlite_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"something else entirely" * 100)
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", SimulatedClock())

    with pytest.raises(LedgerUnavailable, match="file is not a database"):
        ledger.create()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("not a url", "not a database URL"),
        ("mysql://u:secret@h/x", "LOWTIDE_DATABASE_URL names mysql; the ledger works with"),
    ],
)
def test_urls_that_cannot_be_used(url: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as caught:
        Ledger(url, SimulatedClock())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_any_way_to_name_postgres_uses_psycopg_and_hides_the_password(scheme: str) -> None:
    ledger = Ledger(f"{scheme}://user:secret@127.0.0.1:1/x", SimulatedClock())

    with pytest.raises(LedgerUnavailable) as caught:
        ledger.create()

    assert ledger.name == "postgresql+psycopg://user:***@127.0.0.1:1/x"
    assert "secret" not in str(caught.value)


def test_a_mistake_of_ours_is_not_taken_for_an_outage(ledger: Ledger) -> None:
    with pytest.raises(IntegrityError), ledger._db.write() as connection:
        connection.execute(REQUESTS.insert().values(custom_id="x"))


def test_an_outage_of_the_source_is_not_taken_for_one_of_the_ledger(ledger: Ledger) -> None:
    def lines() -> Iterator[NewRequest]:
        yield new_request("t1.0.0")
        raise OSError("the source is gone")

    with pytest.raises(OSError, match="the source is gone"):
        ledger.record(new_batch("b1"), lines())


@pytest.mark.parametrize("what", ["COLUMN task_id TO other", "TO other"])
def test_a_database_that_lacks_something_says_what_to_do(ledger: Ledger, what: str) -> None:
    back = "ALTER TABLE lowtide_requests RENAME COLUMN other TO task_id"
    if "COLUMN" not in what:
        back = "ALTER TABLE other RENAME TO lowtide_requests"
    with ledger._db.write() as connection:
        connection.exec_driver_sql(f"ALTER TABLE lowtide_requests RENAME {what}")
    try:
        with pytest.raises(LedgerUnavailable, match="restart a worker, which brings it up to date"):
            ledger.task("t1")
    finally:
        with ledger._db.write() as connection:
            connection.exec_driver_sql(back)
