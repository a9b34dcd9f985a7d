"""The main job with real worker processes: every call gets its own answer, each paid once."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.integration.conftest import MODULE
from tests.plugins.stack import Stack

pytestmark = pytest.mark.slow


@pytest.fixture
def shop(stack: Stack, client):
    """The app's module as a client has it; the workers that a test started end with it."""
    yield client
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


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_answers_to_plain_tasks_need_no_tracer(stack: Stack, shop, pool: str) -> None:
    stack.worker("tests.integration.traced_app", pool=pool, concurrency=1)
    stack.ready(shop.app)

    plain = shop.summarize.delay("Parcel number 7 is at sea.")
    linked = shop.summarize.apply_async(["Parcel 8 is at sea."], link=shop.noop.s())
    assert plain.get(timeout=60) == "Parcel number 7 is at sea."
    assert linked.get(timeout=60) == "Parcel 8 is at sea."

    assert shop.app.send_task("shop.traced").get(timeout=60) == [linked.id]
