"""A tenant with many calls, where little fits at the provider, keeps back no other; real workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lowtide import runtime
from lowtide.simulator import Steering
from tests.plugins.redis import started_redis
from tests.plugins.stack import Stack, client_of, deployment, until

pytestmark = pytest.mark.slow
MODULE = "tests.sharing.fair_app"
MANY, BATCH = 100, 5


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    redis = started_redis(tmp_path)
    with deployment(tmp_path, redis.url) as stack:
        stack.env |= {
            "LOWTIDE_SHARE_BY": "tenant",
            "LOWTIDE_MAX_REQUESTS": str(BATCH),
            # One batch fits, as long as nothing better is learned of the estimates.
            "LOWTIDE_ENQUEUED_TOKENS": "250",
            # Who waits is woken when room returns, long before it would look by itself.
            "LOWTIDE_POLL_MAX": "10m",
        }
        yield stack
    redis.stop()


def test_the_few_calls_of_one_pass_the_many_of_another(stack: Stack) -> None:
    Steering(stack.simulator.root).turnaround(working="300ms")
    stack.worker(MODULE)
    client = client_of(MODULE)
    stack.ready(client.app)
    ledger = runtime.of(client.app).ledger

    many = client.summarize.delay_many([f"Wave {n}." for n in range(MANY)], tenant="acme")
    until(
        lambda: sum(batch.state == "HELD" for batch in ledger.batches()) > 10,
        "most of the batches wait for room",
    )
    few = client.summarize.delay_many(["Ripple 1.", "Ripple 2."], tenant="globex")

    assert few.get(timeout=60) == ["Ripple 1.", "Ripple 2."]
    done = sum(1 for result in many.results if result.ready())
    assert done < MANY / 2, stack.logs()
    assert many.get(timeout=120) == [f"Wave {n}." for n in range(MANY)]

    def booked() -> bool:
        found = {row.key: row.answered for row in ledger.costs("tenant")}
        return found == {"acme": MANY, "globex": 2}

    until(booked, "all are booked for their tenants")
    rows = stack.simulator.report()["requests"]
    assert sum(row["billed"] for row in rows) == MANY + 2
