"""Migrations: they make what the models say, many processes may start them, the wheel holds them."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlmodel import SQLModel

from lowtide.clock import SimulatedClock, SystemClock
from lowtide.ledger import Ledger, migrate
from lowtide.ledger.tables import METADATA
from tests.ledger.support import record


@pytest.fixture
def fresh(fresh_url: str) -> Iterator[Ledger]:
    ledger = Ledger(fresh_url, SystemClock())
    yield ledger
    ledger.close()


def test_the_migrations_make_what_the_models_say(fresh: Ledger) -> None:
    fresh.create()

    with fresh._db.read() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"version_table": migrate.VERSION_TABLE, "compare_type": True},
        )
        differences = compare_metadata(context, METADATA)

    assert differences == []


def test_creating_again_changes_nothing(fresh: Ledger) -> None:
    fresh.create()
    record(fresh, "b1", ["t1.0.0"])

    fresh.create()

    assert fresh.ids("b1") == {"t1.0.0"}


def test_check_tells_what_to_do(fresh: Ledger) -> None:
    [problem] = fresh.check()
    assert "has no tables yet; start a worker" in problem

    fresh.create()
    assert fresh.check() == []

    with fresh._db.write() as connection:
        connection.execute(text("UPDATE lowtide_version SET version_num = 'f00'"))
    [problem] = fresh.check()
    assert "of a newer release (f00); update lowtide" in problem


def test_check_knows_an_older_release(fresh: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.create()
    newest = migrate.head()
    monkeypatch.setattr(migrate, "head", lambda: "9999")

    [problem] = fresh.check()

    assert f"of an older release ({newest}); start a worker of this one" in problem


def test_every_migration_can_be_taken_back(fresh: Ledger) -> None:
    fresh.create()

    with fresh._db.write() as connection:
        command.downgrade(migrate.config(connection), "base")

    with fresh._db.read() as connection:
        assert inspect(connection).get_table_names() == [migrate.VERSION_TABLE]
    fresh.create()
    assert fresh.check() == []


def test_a_migration_that_breaks_off_leaves_nothing(
    fresh: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = command.upgrade

    def breaks_off(*args: object) -> None:
        upgrade(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "upgrade", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        fresh.create()

    with fresh._db.read() as connection:
        assert inspect(connection).get_table_names() == []


def test_one_migrates_and_the_others_wait(fresh_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = command.upgrade
    unready, inside = threading.Barrier(2), threading.Barrier(2)
    current = migrate.current

    def seen_by_both(connection: Connection) -> str | None:
        found = current(connection)
        unready.wait(10)
        return found

    def alone(*args: object) -> None:
        with pytest.raises(threading.BrokenBarrierError):
            inside.wait(0.3)
        upgrade(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(migrate, "current", seen_by_both)
    monkeypatch.setattr(command, "upgrade", alone)
    ledgers = [Ledger(fresh_url, SystemClock()) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Ledger.create, ledgers))

    monkeypatch.undo()
    assert [ledger.check() for ledger in ledgers] == [[], []]
    for ledger in ledgers:
        ledger.close()


def test_four_processes_may_create_at_once(fresh_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(4)
    processes = [context.Process(target=create, args=(fresh_url, start)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0] * 4
    ledger = Ledger(fresh_url, SimulatedClock())
    assert ledger.check() == []
    ledger.close()


def create(url: str, start: multiprocessing.synchronize.Barrier) -> None:
    ledger = Ledger(url, SystemClock())
    start.wait(30)
    ledger.create()
    assert ledger.check() == []


def test_there_is_one_head_and_the_package_holds_it() -> None:
    script = ScriptDirectory.from_config(migrate.config())

    assert len(script.get_heads()) == 1
    assert Path(script.dir).is_relative_to(Path(migrate.__file__).parent)


def test_an_apps_own_models_do_not_meet_ours() -> None:
    assert not any(name.startswith("lowtide") for name in SQLModel.metadata.tables)
    assert all(name.startswith("lowtide_") for name in METADATA.tables)


def test_sqlite_keeps_what_was_committed(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/deep/down/ledger.db", SystemClock())
    ledger.create()

    with ledger._db.read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    ledger.close()

    full = 2
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": full,
        "foreign_keys": 1,
        "busy_timeout": 30_000,
    }
