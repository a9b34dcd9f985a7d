"""Redis, database and broker fail for a while, or forget: nothing is lost, and it is said once."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.faults.conftest import Bench
from tests.plugins.stack import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
KINDS = {"plain": 10, "steps": 3, "bad": 2, "many": 1}
SLOW = ("--delay", "4s")


def send(bench: Bench, **kinds: int) -> None:
    for kind, count in (kinds or KINDS).items():
        bench.client.send(kind, count)


def test_redis_wiped_after_submission(bench: Callable[..., Bench]) -> None:
    """Every answer of every submitted batch still reaches its task."""
    here = bench(simulator=SLOW)
    send(here, plain=30, bad=2)
    until(lambda: here.requests() == 32 and here.states() == {"SUBMITTED"}, "all is submitted")

    here.deployment.redis.flushall()

    assert here.settle().violations == {}


def test_redis_killed_with_its_file_and_away_for_some_seconds(bench: Callable[..., Bench]) -> None:
    here = bench()
    send(here)

    here.deployment.valkey.kill()
    time.sleep(6)  # the outage itself
    here.deployment.restart_valkey()
    send(here)

    assert here.settle().violations == {}
    assert here.lines("has lost writes") == []


def test_messages_of_the_pipeline_are_lost(bench: Callable[..., Bench]) -> None:
    here = bench(simulator=("--delay", "1s"))
    send(here)
    end = time.monotonic() + 6
    while time.monotonic() < end:  # whatever step they were for
        here.deployment.redis.delete("lowtide")
        time.sleep(0.01)

    assert here.settle().violations == {}


def test_postgres_away_for_some_seconds(bench: Callable[..., Bench]) -> None:
    here = bench(database="postgres")
    postgres = here.deployment.postgres
    assert postgres is not None
    send(here)
    until(here.states, "the ledger has batches")

    postgres.stop()
    send(here)
    time.sleep(8)  # the outage itself
    postgres.start()

    assert here.settle().violations == {}
    told = here.lines("waits and is tried again: The ledger")
    assert told
    assert len(told) <= 3, "one line a minute for each process"
    assert here.lines("Traceback") == []


def test_sqlite_locked_by_another_program(bench: Callable[..., Bench]) -> None:
    here = bench()
    send(here)
    until(here.states, "the ledger has batches")

    with closing(sqlite3.connect(here.deployment.folder / "home" / "ledger.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        send(here)
        time.sleep(5)  # the lock itself
        other.rollback()

    assert here.settle().violations == {}
