"""RabbitMQ with quorum queues as broker: the main job, and what such queues do otherwise."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from tests.integration.calls import (
    a_revoked_call_ends_while_it_waits,
    every_kind_ends_as_it_should,
    what_fails_for_now_is_sent_again,
)
from tests.plugins.rabbitmq import RabbitServer
from tests.plugins.stack import Stack, client_of, ended_by_pid, until

pytestmark = pytest.mark.slow
MODULE = "tests.brokers.shop"


@pytest.fixture
def shop(stack: Stack, rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch):
    """The app's module as a client has it, made for this test's broker and Redis."""
    stack.env["TEST_BROKER"] = rabbitmq_url
    monkeypatch.setenv("TEST_BROKER", rabbitmq_url)
    return client_of(MODULE, "tests.integration.app", "tests.integration").shop


def queues(server: RabbitServer, url: str) -> dict[str, str]:
    """The vhost's durable queues for tasks, by name: their types."""
    said = server.control("list_queues", "-p", url.rpartition("/")[2], "name", "type")
    rows = dict(line.split() for line in said.splitlines() if "\t" in line)
    return {name: kind for name, kind in rows.items() if name in ("celery", "lowtide")}


def paid_once(stack: Stack, count: int) -> None:
    requests = stack.simulator.report()["requests"]
    assert len(requests) == count
    assert Counter(row["billed"] for row in requests) == {1: count}


def test_two_workers_and_two_thousand_calls(
    stack: Stack, shop, rabbitmq_server: RabbitServer, rabbitmq_url: str
) -> None:
    stack.worker(MODULE, name="w1")
    stack.worker(MODULE, name="w2")
    stack.ready(shop.app, 2)

    calls = {n: shop.summarize.delay(f"Parcel number {n} is at sea.") for n in range(2_000)}
    wrong = {
        n for n, call in calls.items() if call.get(timeout=120) != f"Parcel number {n} is at sea."
    }

    assert wrong == set()
    paid_once(stack, 2_000)
    assert queues(rabbitmq_server, rabbitmq_url) == {"celery": "quorum", "lowtide": "quorum"}


@pytest.mark.parametrize(
    ("pool", "ledger"),
    [
        ("prefork", "sqlite"),
        ("prefork", "postgresql"),
        ("threads", "postgresql"),
        ("gevent", "sqlite"),
        ("solo", "sqlite"),
    ],
)
def test_every_kind_of_call(
    stack: Stack, shop, request: pytest.FixtureRequest, pool: str, ledger: str
) -> None:
    if ledger == "postgresql":
        stack.env["LOWTIDE_DATABASE_URL"] = request.getfixturevalue("postgres_url")
    # With gevent Celery may wait for ever for the confirmation of an event, with plain tasks too.
    stack.env["TEST_EVENTS"] = "off" if pool == "gevent" else "on"
    stack.worker(MODULE, pool=pool)
    stack.ready(shop.app)

    every_kind_ends_as_it_should(stack, shop)


def test_retries_and_revokes(stack: Stack, shop) -> None:
    stack.worker(MODULE, name="w1")
    stack.worker(MODULE, name="w2")
    stack.ready(shop.app, 2)

    what_fails_for_now_is_sent_again(stack, shop)
    a_revoked_call_ends_while_it_waits(stack, shop)


def test_a_countdown_waits_in_the_broker_and_holds_up_nobody(stack: Stack, shop) -> None:
    stack.worker(MODULE)
    stack.ready(shop.app)
    began = stack_time(shop)

    # More than a worker may hold: were they waiting in it, the last call would wait for them.
    later = [shop.summarize.apply_async((f"Buoy {n} bobs.",), countdown=20) for n in range(300)]
    now = shop.summarize.delay("The lamp is lit.")

    assert now.get(timeout=60) == "The lamp is lit."
    assert stack_time(shop) - began < 20
    assert [call.get(timeout=60) for call in later] == [f"Buoy {n} bobs." for n in range(300)]
    paid_once(stack, 301)


def stack_time(shop) -> float:
    return float(shop.app.backend.client.time()[0])


def test_what_a_killed_worker_held_comes_back_at_once(stack: Stack, shop) -> None:
    first = stack.worker(MODULE, name="w1")
    stack.ready(shop.app)
    calls = {n: shop.summarize.delay(f"Crate {n} is wet.") for n in range(500)}
    until(lambda: stack.simulator.report()["requests"], "some are at the provider")

    ended_by_pid(first, signal.SIGKILL)
    stack.workers.remove(first)
    stack.worker(MODULE, name="w2")

    wrong = {n for n, call in calls.items() if call.get(timeout=120) != f"Crate {n} is wet."}
    assert wrong == set()
    paid_once(stack, 500)
