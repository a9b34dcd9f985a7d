"""A call that ends when it is accepted needs the result backend: away, its message goes back."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis.exceptions import ConnectionError as RedisConnectionError

from lowtide import BatchTask
from lowtide.accept import Accepted, Incoming, accept
from lowtide.connect import connect
from lowtide.envelope import Body


def raises() -> str:
    raise KeyError("in the function")


def ends_at_once() -> Generator[Any, Any, str]:
    return "known"
    yield


@pytest.mark.parametrize(("function", "state"), [(raises, "FAILURE"), (ends_at_once, "SUCCESS")])
def test_its_outcome_is_its_own_once_the_backend_is_back(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Any, state: str
) -> None:
    name = uuid.uuid4().hex
    app = Celery(name, broker="memory://", backend=redis_url, set_as_current=False)
    app.conf.lowtide = {"redis_url": redis_url, "home": tmp_path}
    app.task(name="early", base=BatchTask, model="m", shared=False)(function)
    app.finalize()
    empty: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    headers = {"id": name, "task": "early", "lang": "py", "delivery_info": {}}
    message = Incoming("early", headers, Body.of([], {}, empty, "json"))
    ensure, writes = app.backend.ensure, []

    def away_once(function: Any, args: Any, **policy: Any) -> Any:
        writes.append(args)
        if len(writes) == 1:
            raise RedisConnectionError("gone")
        return ensure(function, args, **policy)

    monkeypatch.setattr(app.backend, "ensure", away_once)

    assert accept(app, [message], "w") == [Accepted("returned")]
    assert connect(redis_url).get(f"celery-task-meta-{name}") is None

    [again] = accept(app, [message], "w")
    assert again.end == "traced"
    assert app.AsyncResult(name).state == state
    app.close()
