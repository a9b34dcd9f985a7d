"""A deployment of one worker that a test breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kombu.connection import Connection
from sqlalchemy import func, select

from lowtide.clock import SystemClock
from lowtide.ledger import Ledger
from lowtide.ledger.tables import REQUESTS
from tests.chaos.client import Client, Listener
from tests.chaos.conftest import client_app, started
from tests.chaos.deployment import Deployment
from tests.chaos.invariants import Verdict, check, open_batches, settled
from tests.faults.redis_broker import transport
from tests.plugins.stack import until


class Bench:
    """A deployment, its client and who listens to the results."""

    def __init__(self, deployment: Deployment, client: Client, listener: Listener) -> None:
        self.deployment = deployment
        self.client = client
        self.listener = listener

    def states(self) -> set[str]:
        """The states of all batches that have not come to their end."""
        return {each.split()[1] for each in open_batches(self.deployment)}

    def requests(self) -> int:
        """How many requests the ledger holds."""
        ledger = Ledger(self.deployment.ledger_url, SystemClock())
        with ledger._db.read() as connection:
            found = connection.execute(select(func.count()).select_from(REQUESTS)).scalar_one()
        ledger.close()
        return int(found)

    def settle(self) -> Verdict:
        """Waits until all has settled, and judges."""
        until(lambda: settled(self.deployment, self.client), "all settles", timeout=90)
        return check(self.deployment, self.client, self.listener)

    def lines(self, text: str) -> list[str]:
        """The lines of the workers' logs that hold `text`."""
        return [
            line
            for worker in self.deployment.workers
            for line in worker.log.read_text(errors="replace").splitlines()
            if text in line
        ]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    with ExitStack() as stack:

        def make(**options: Any) -> Bench:
            deployment = started(tmp_path, **options)
            stack.callback(deployment.stop)
            client = Client(client_app(deployment.valkey.url, monkeypatch), seed=1)
            listener = Listener(deployment.redis)
            stack.callback(listener.stop)
            deployment.ready(client.app)
            return Bench(deployment, client, listener)

        yield make


@pytest.fixture
def connection(redis_url: str) -> Iterator[Connection]:
    """To the test's Redis as a broker, by lowtide's transport."""
    with transport(redis_url) as opened:
        yield opened
