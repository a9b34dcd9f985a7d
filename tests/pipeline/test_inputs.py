"""No batch has more embedding inputs than the provider takes."""

from __future__ import annotations

import dataclasses
import uuid

import orjson
import pytest

from lowtide import inputs
from lowtide.calls import EMBEDDINGS
from lowtide.lane import Lane
from lowtide.request import Request
from lowtide.runtime import Runtime
from lowtide.submit import submit
from tests.pipeline.conftest import Interfering, billed, ended, requests, sealed
from tests.plugins.stack import Simulator

LANE = Lane("default", EMBEDDINGS, "text-embedding-3-small")


def embeddings(*counts: int) -> list[Request]:
    """A request for each number of inputs."""
    run = uuid.uuid4().hex[:12]
    return [
        Request(
            f"{run}-{n}.0.0",
            f"{run}-{n}",
            "tests.task",
            LANE,
            orjson.dumps({"model": LANE.model, "input": ["sea"] * count}),
            b"envelope",
            20,
        )
        for n, count in enumerate(counts)
    ]


@pytest.fixture
def few(rt: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that takes 10 inputs in a request, and 20 in a batch."""
    profile = dataclasses.replace(
        rt.settings.profile("default"), max_inputs=10, max_batch_inputs=20
    )
    monkeypatch.setitem(rt.settings.profiles, "default", profile)


def test_a_batch_with_too_many_inputs_is_cut(
    rt: Runtime, provider: Interfering, simulator: Simulator, few: None
) -> None:
    given = embeddings(10, 10, 10, 5, 5)
    whole = sealed(rt, given)

    assert submit(rt, whole) is None

    parts = [batch for batch in rt.ledger.batches() if batch.parent == whole]
    assert sorted(batch.requests for batch in parts) == [2, 3]
    for part in parts:
        submit(rt, part.id)
        ended(rt, part.id)
    assert billed(simulator, given) == [1] * 5
    assert all(part.attempt == 1 for part in rt.ledger.task(given[0].task_id))


def test_a_batch_with_just_enough_is_not(rt: Runtime, provider: Interfering, few: None) -> None:
    whole = sealed(rt, embeddings(10, 10))

    submit(rt, whole)

    batch = rt.ledger.batch(whole)
    assert batch is not None
    assert batch.state == "SUBMITTED"


def test_the_limits_of_openai_hold(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    given = embeddings(*[2_048] * 25)
    whole = sealed(rt, given)

    assert submit(rt, whole) is None

    parts = [batch for batch in rt.ledger.batches() if batch.parent == whole]
    assert sorted(batch.requests for batch in parts) == [1, 24]
    for part in parts:
        submit(rt, part.id)
        ended(rt, part.id)
        found = rt.ledger.batch(part.id)
        assert found is not None
        assert found.provider_status == "completed"
    assert billed(simulator, given) == [1] * 25


def test_other_endpoints_have_no_inputs(rt: Runtime, provider: Interfering, few: None) -> None:
    batch_id = sealed(rt, requests(30))

    submit(rt, batch_id)

    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    assert batch.state == "SUBMITTED"


@pytest.mark.parametrize(
    ("given", "expected"),
    [("sea", 1), (["sea", "land"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)],
)
def test_inputs_are_counted_as_the_service_counts_them(given: object, expected: int) -> None:
    assert inputs.count(EMBEDDINGS, {"input": given}) == expected
