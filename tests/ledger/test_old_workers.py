"""Migrations while workers of the release before go on: they write and read as ever.

What an old worker does is told by its tables: it names the columns that it knows, and no others.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, Table, select

from lowtide.clock import SystemClock
from lowtide.errors import LedgerUnavailable
from lowtide.ledger import BatchState, Ledger, RequestState, migrate
from lowtide.ledger.tables import BATCHES, REQUESTS
from tests.ledger.support import advance, record, settle

REVISIONS = [
    script.revision
    for script in reversed(list(ScriptDirectory.from_config(migrate.config()).walk_revisions()))
]
STEPS = list(itertools.pairwise(REVISIONS))


def rows_of(ledger: Ledger, table: Table) -> dict[str, Any]:
    with ledger._db.read() as connection:
        return dict(connection.execute(select(table)).mappings().one())


@pytest.fixture
def sample(tmp_path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """A delivered batch and its request, with a value in each column that ordinary work fills."""
    ledger = Ledger(f"sqlite:///{tmp_path}/sample.db", SystemClock())
    ledger.create()
    record(ledger, "sample", ["sample.0.0"])
    advance(ledger, "sample", BatchState.FETCHED)
    settle(ledger, "sample", ["sample.0.0"], input_tokens=7, output_tokens=3)
    yield rows_of(ledger, BATCHES), rows_of(ledger, REQUESTS)
    ledger.close()


class OldWorker(threading.Thread):
    """Records batches and notes outcomes, one after the other, as a release of old does it.

    Args:
        ledger: Of the database that is migrated meanwhile.
        known: The tables as that release knows them.
        sample: The rows that it writes, under other names.
    """

    def __init__(self, ledger: Ledger, known: MetaData, sample: tuple[dict[str, Any], ...]) -> None:
        super().__init__(daemon=True)
        self.batches = known.tables["lowtide_batches"]
        self.requests = known.tables["lowtide_requests"]
        self.written = 0
        self.errors: list[Exception] = []
        self.done = threading.Event()
        self._ledger = ledger
        self._sample = sample

    def run(self) -> None:
        while not self.done.is_set():
            try:
                self.work(f"old-{self.written}")
            except LedgerUnavailable as error:
                # A step that waits too long for the migration, or is chosen to give way to it,
                # fails in passing, and is taken again.
                if "lock" not in str(error):
                    self.errors.append(error)
                    return
            except Exception as error:
                self.errors.append(error)
                return
            else:
                self.written += 1

    def work(self, batch_id: str) -> None:
        batch, request = self._sample
        custom_id = f"{batch_id}.0.0"
        with self._ledger._db.write() as connection:
            new = {**batch, "id": batch_id, "state": BatchState.FETCHED}
            connection.execute(self.batches.insert().values(known_to(self.batches, new)))
            new = {**request, "custom_id": custom_id, "batch_id": batch_id, "task_id": batch_id}
            new["state"] = RequestState.RECORDED
            connection.execute(self.requests.insert().values(known_to(self.requests, new)))
        with self._ledger._db.write() as connection:
            mine = self.requests.c.custom_id == custom_id
            found = connection.execute(select(self.requests).where(mine)).mappings().one()
            assert found["blob"] == request["blob"]
            ended = {"state": RequestState.DELIVERED, "done_at": time.time()}
            connection.execute(self.requests.update().where(mine).values(ended))


def known_to(table: Table, values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in table.c}


@pytest.mark.parametrize(("old", "new"), STEPS, ids=[f"{old}-{new}" for old, new in STEPS])
def test_a_worker_of_the_release_before_goes_on(
    fresh_url: str,
    sample: tuple[dict[str, Any], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    old: str,
    new: str,
) -> None:
    ledger = Ledger(fresh_url, SystemClock())
    ledger.create()
    with ledger._db.write() as connection:
        command.downgrade(migrate.config(connection), old)
    known = MetaData()
    with ledger._db.read() as connection:
        known.reflect(connection, only=lambda name, _: name.startswith("lowtide_"))
    worker = OldWorker(ledger, known, sample)
    worker.start()
    wrote(worker, 5)

    with monkeypatch.context() as patch:
        upgrade = command.upgrade
        patch.setattr(migrate, "head", lambda: new)
        patch.setattr(command, "upgrade", lambda conf, _: upgrade(conf, new))
        ledger.create()
    wrote(worker, worker.written + 5)
    ledger.create()
    wrote(worker, worker.written + 5)
    worker.done.set()
    worker.join(60)

    assert worker.errors == []
    for number in range(worker.written):
        assert ledger.undelivered(f"old-{number}") == 0
        assert ledger.close_if_done(f"old-{number}")
    ledger.close()


def wrote(worker: OldWorker, count: int) -> None:
    end = time.monotonic() + 60
    while worker.written < count and not worker.errors:
        assert time.monotonic() < end, f"the old worker stands still at {worker.written}"
        time.sleep(0.01)
