"""A deployment whose provider answers when it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lowtide import failpoints, runtime
from lowtide.simulator import Steering
from tests.plugins.redis import started_redis
from tests.plugins.stack import Stack, client_of, deployment, until

MODULE = "tests.sharing.app"


@dataclass
class Twins:
    """A deployment whose provider answers when it is told to."""

    stack: Stack
    steering: Steering
    client: Any

    @property
    def rt(self) -> runtime.Runtime:
        return runtime.of(self.client.app)

    def waiting(self, *results: Any) -> None:
        """Waits until the requests of all are in the ledger."""
        ids = [f"{result.id}.0.0" for result in results]
        until(lambda: len(self.rt.ledger.batches_of(ids)) == len(ids), "all are recorded")

    def at_provider(self, result: Any) -> None:
        """Waits until the provider works on it."""

        def there() -> bool:
            where = result.where()
            return where is not None and where["state"] == "SUBMITTED"

        until(there, "the provider has it")

    def answer(self) -> None:
        """Lets the provider end what it has."""
        self.steering.advance("1h")

    def paid(self, *results: Any) -> int:
        """How many lines the provider ran and billed for these tasks."""
        ids = {result.id for result in results}
        rows = self.steering.requests()
        return sum(row["billed"] for row in rows if row["custom_id"].split(".")[0] in ids)

    def booked(self, *results: Any) -> list[Any]:
        """Who pays for each, once that is noted."""

        def rows() -> Any:
            found = [self.rt.ledger.task(result.id)[-1] for result in results]
            return found if all(row.done_at for row in found) else None

        return [row.tier for row in until(rows, "all are booked")]


@pytest.fixture(scope="package")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    redis = started_redis(tmp_path_factory.mktemp("redis"))
    with deployment(tmp_path_factory.mktemp("twins"), redis.url) as stack:
        folder = stack.folder / "failpoints"
        folder.mkdir()
        stack.env["LOWTIDE_LANES"] = '{"gpt-5-nano": {"max_wait": "1h"}}'
        stack.env |= {failpoints.VARIABLE: str(folder), "LOWTIDE_LEASE": "3s"}
        stack.worker(MODULE, name="w1")
        stack.worker(MODULE, name="w2")
        client = client_of(MODULE)
        stack.ready(client.app, 2)
        yield Twins(stack, Steering(stack.simulator.root), client)
    redis.stop()


@pytest.fixture(autouse=True)
def _slow_provider(twins: Twins) -> Iterator[None]:
    twins.steering.turnaround(working="1h")
    yield
    twins.steering.turnaround(working="0s")
