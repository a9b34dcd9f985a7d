"""Fixtures: the ledger on both databases; every test that asks for `ledger` runs twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lowtide.clock import SimulatedClock
from lowtide.ledger import Ledger
from lowtide.ledger.tables import ATTEMPTS, BATCHES, OUTBOX, REQUESTS
from tests.plugins.postgres import PostgresServer


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture(params=["sqlite", "postgres"])
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that nobody has used yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def shared_postgres(postgres_server: PostgresServer) -> str:
    postgres_server.execute("CREATE DATABASE ledger")
    return postgres_server.url("ledger")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that may have the ledger's tables, but nothing in them."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    shared: str = request.getfixturevalue("shared_postgres")
    return shared


@pytest.fixture
def ledger(url: str, clock: SimulatedClock) -> Iterator[Ledger]:
    ledger = Ledger(url, clock)
    ledger.create()
    empty(ledger)
    yield ledger
    ledger.close()


def empty(ledger: Ledger) -> None:
    """Deletes all rows."""
    with ledger._db.write() as connection:
        connection.execute(OUTBOX.delete())
        connection.execute(ATTEMPTS.delete())
        connection.execute(REQUESTS.delete())
        connection.execute(BATCHES.delete())
