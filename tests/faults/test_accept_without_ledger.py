"""A generator that is retried needs the ledger to be accepted: away, its message goes back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context

from lowtide import BatchTask, chat, runtime, worker_request
from lowtide.accept import Accepted, Incoming, accept
from lowtide.envelope import Body
from lowtide.errors import LedgerUnavailable


@pytest.fixture
def app(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Celery:
    app = Celery(f"away-{uuid.uuid4().hex}", broker="memory://", set_as_current=False)
    app.conf.lowtide = {"redis_url": redis_url, "home": tmp_path}

    def away(*_: object) -> None:
        raise LedgerUnavailable("The ledger cannot be used; work waits.")

    monkeypatch.setattr(runtime.of(app), "earlier", away)
    return app


@pytest.fixture
def task(app: Celery) -> Any:
    @app.task(name="twice", base=BatchTask)
    def twice() -> Iterator[Any]:
        yield chat("first", model="m")
        yield chat("second", model="m")

    return twice


def headers() -> dict[str, Any]:
    return {"id": "t1", "task": "twice", "retries": 1, "lang": "py", "delivery_info": {}}


def test_messages_accepted_together_go_back(app: Celery, task: Any) -> None:
    empty: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

    [end] = accept(app, [Incoming("twice", headers(), Body.of([], {}, empty, "json"))], "w")

    assert end == Accepted("returned")


def test_a_message_accepted_alone_goes_back(app: Celery, task: Any) -> None:
    task.push_request(**vars(Context(headers(), args=[], kwargs={}, called_directly=False)))
    try:
        with pytest.raises(worker_request.Returned, match="The ledger cannot be used"):
            task.run()
    finally:
        task.pop_request()
