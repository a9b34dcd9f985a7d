"""The main job with real worker processes: every call gets its own answer, each paid once."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator

import pytest
from celery import chain, chord, group

from lowtide.errors import RequestRejected
from tests.plugins.redis import started_redis
from tests.plugins.stack import Stack, deployment, until

pytestmark = pytest.mark.slow
MODULE = "tests.integration.app"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One deployment for all: the client's app is imported once, as in a real process."""
    redis = started_redis(tmp_path_factory.mktemp("redis"))
    with deployment(tmp_path_factory.mktemp("stack"), redis.url) as stack:
        yield stack
    redis.stop()


@pytest.fixture
def shop(stack: Stack):
    """The app's module as a client has it; the workers that a test started end with it."""
    yield importlib.import_module(MODULE)
    stack.stop_workers()


def paid_once(stack: Stack, task_ids: set[str]) -> None:
    """The provider ran the request of each task, none of them twice, each in one batch."""
    rows = [
        row
        for row in stack.simulator.report()["requests"]
        if row["custom_id"].split(".")[0] in task_ids
    ]
    assert len(rows) == len(task_ids)
    assert Counter(row["billed"] for row in rows) == {1: len(task_ids)}
    assert Counter(len(row["batches"]) for row in rows) == {1: len(task_ids)}


def test_two_workers_and_five_thousand_calls(stack: Stack, shop) -> None:
    stack.worker(MODULE, name="w1")
    stack.worker(MODULE, name="w2")
    stack.ready(shop.app, 2)

    calls = {n: shop.summarize.delay(f"Parcel number {n} is at sea.") for n in range(5_000)}
    wrong = {
        n: answer
        for n, result in calls.items()
        if (answer := result.get(timeout=120)) != f"Parcel number {n} is at sea."
    }

    assert wrong == {}
    paid_once(stack, {result.id for result in calls.values()})


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_every_kind_of_call_on_every_pool(stack: Stack, shop, pool: str) -> None:
    stack.worker(MODULE, pool=pool)
    stack.ready(shop.app)

    plain = shop.summarize.delay("The tide is low.")
    ticket = shop.triage.delay("Subject: flood. Help.")
    steps = shop.review.delay("The boat is red.")
    both = shop.vectors.delay(["sea", "land"])
    other = shop.respond.delay("The port is open.")
    wrong = shop.bad.delay("The buoy is green.")
    tail = chain(shop.summarize.s("The pier is long."), shop.summarize.s(5), shop.noop.s())()
    many = chord(group(shop.summarize.s(f"Wave {n} rolls.") for n in range(5)), shop.join.s())()

    assert plain.get(timeout=60) == "The tide is low."
    assert set(ticket.get(timeout=60)) == {"subject", "urgent"}
    assert steps.get(timeout=60)[0] == "The boat is red."
    assert [len(vector) for vector in both.get(timeout=60)] == [1536, 1536]
    assert other.get(timeout=60) == "The port is open."
    with pytest.raises(RequestRejected) as caught:
        wrong.get(timeout=60)
    assert caught.value.details["status"] == 400
    assert caught.value.details["task"] == "shop.bad"
    assert tail.get(timeout=60) == "The pier is long."
    assert many.get(timeout=60) == " | ".join(f"Wave {n} rolls." for n in range(5))
    # What is done leaves nothing behind: no file at the provider, no buffer in Redis.
    until(lambda: _files(stack) == [], "the provider's files are deleted")


def _files(stack: Stack) -> list[str]:
    import openai

    client = openai.OpenAI(api_key="simulator", base_url=stack.simulator.base_url)
    return [file.id for file in client.files.list()]
