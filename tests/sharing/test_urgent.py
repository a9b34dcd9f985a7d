"""Urgent calls with real workers: their lane is sealed sooner, and takes the others along."""

from __future__ import annotations

from typing import Any

import pytest
from celery import group

from tests.plugins.stack import until
from tests.sharing.conftest import Twins

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _fast_provider(twins: Twins, _slow_provider: None) -> None:
    twins.steering.turnaround(working="0s")


def test_an_urgent_task_or_call_takes_its_lane_along(twins: Twins) -> None:
    c = twins.client
    patient = c.patient.delay("One ship waits.")
    until(lambda: patient.state == "BUFFERED", "it waits in its lane, for an hour if need be")

    assert c.urgent.delay("One ship sails.").get(timeout=60) == "One ship sails."
    assert patient.get(timeout=60) == "One ship waits."

    second = c.patient.delay("Two ships wait.")
    until(lambda: second.state == "BUFFERED", "it waits")
    hurried = c.patient.apply_async(("Two ships sail.",), max_wait="100ms")
    assert hurried.get(timeout=60) == "Two ships sail."
    assert second.get(timeout=60) == "Two ships wait."


def test_each_call_is_booked_for_its_tenant(twins: Twins) -> None:
    c = twins.client
    results: list[Any] = [
        c.patient.apply_async(("Own.",), max_wait=0),
        c.patient.apply_async(("Given.",), max_wait=0, tenant="globex"),
        group(c.urgent.s("In a group.").set(tenant="initech"))().results[0],
        *c.urgent.delay_many(["Many.", "More."], tenant="umbrella").results,
        c.urgent.delay("Nobody's."),
    ]
    for result in results:
        result.get(timeout=60)

    twins.booked(*results)
    tenants = [twins.rt.ledger.task(result.id)[0].tenant for result in results]
    assert tenants == ["acme", "globex", "initech", "umbrella", "umbrella", None]
    assert {row.key for row in twins.rt.ledger.costs("tenant")} >= {"acme", "globex", ""}
