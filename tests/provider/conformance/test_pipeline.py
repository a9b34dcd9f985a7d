"""The pipeline's own steps at each service: every request settled, paid once."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from celery import Celery

from lowtide import outcomes, runtime
from lowtide.fetch import fetch
from lowtide.submit import submit
from tests.pipeline.conftest import ended, requests, sealed
from tests.provider.conformance.conftest import Service


@pytest.fixture
def rt(service: Service, tmp_path: Path, redis_url: str) -> runtime.Runtime:
    app = Celery(f"app-{uuid.uuid4().hex}", broker="memory://", set_as_current=False)
    account = {
        "base_url": service.steering.base_url,
        "api_key": "k",
        "profile": service.profile.name,
    }
    app.conf.lowtide = {
        "redis_url": redis_url,
        "home": tmp_path,
        "max_wait": 0,
        "poll_min": 0.05,
        "adopt_wait": 0,
        "accounts": {"default": account},
    }
    return runtime.of(app)


@pytest.mark.parametrize("doubt", [False, True], ids=["plain", "create-in-doubt"])
def test_ten_requests_are_answered_and_paid_once(
    service: Service, rt: runtime.Runtime, *, doubt: bool
) -> None:
    if doubt:
        service.steering.add_fault("error_after", count=1)
    given = requests(10)
    batch_id = sealed(rt, given)
    before = rt.clock.now()

    after = submit(rt, batch_id)
    ended(rt, batch_id)
    fetched = fetch(rt, batch_id)

    assert after is not None
    assert (after.at or 0.0) - before >= service.profile.poll_min
    assert fetched is not None
    [data] = [rt.slices.get(batch_id, number) for number in range(fetched.slices)]
    assert data is not None
    found = {
        each.custom_id for each in outcomes.unpack(data) if isinstance(each, outcomes.Answered)
    }
    assert found == {request.custom_id for request in given}
    paid = {row["custom_id"]: row["billed"] for row in service.steering.requests()}
    assert [paid[request.custom_id] for request in given] == [1] * 10
