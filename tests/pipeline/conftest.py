"""One replica's runtime in this process, against a real Redis, ledger and simulator."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from celery import Celery

from lowtide import BatchTask, finishing, runtime
from lowtide.lane import Lane
from lowtide.providers import Provider
from lowtide.request import Request
from lowtide.resume import Resumed, Resumption
from lowtide.track import track
from tests.plugins.stack import Simulator, until

LANE = Lane("default", "/v1/chat/completions", "gpt-5-mini")


class Interfering:
    """A provider between lowtide and the real one, which a test lets fail where it wants.

    Attributes:
        before: Method name → called before the real call.
        after: Method name → called with what the real call gave, after it.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.before: dict[str, Callable[..., Any]] = {}
        self.after: dict[str, Callable[..., Any]] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._provider, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if name in self.before:
                self.before[name](*args, **kwargs)
            found = real(*args, **kwargs)
            return self.after[name](found) if name in self.after else found

        return call


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    server = Simulator(tmp_path_factory.mktemp("simulator"))
    yield server
    server.stop()


@pytest.fixture
def rt(
    tmp_path: Path, redis_url: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> runtime.Runtime:
    monkeypatch.setenv("OPENAI_API_KEY", "simulator")
    monkeypatch.setenv("OPENAI_BASE_URL", simulator.base_url)
    app = Celery(
        f"app-{uuid.uuid4().hex}", broker="memory://", backend=redis_url, set_as_current=False
    )
    app.conf.lowtide = {
        "redis_url": redis_url,
        "home": tmp_path,
        "max_wait": 0,
        "poll_min": 0.05,
        "retry_delay": 0.01,
        "adopt_wait": 0,
    }
    return runtime.of(app)


@pytest.fixture
def provider(rt: runtime.Runtime, monkeypatch: pytest.MonkeyPatch) -> Interfering:
    between = Interfering(rt.provider("default"))
    monkeypatch.setattr(rt, "provider", lambda _account: between)
    return between


@pytest.fixture
def told(rt: runtime.Runtime, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What each task was told: its outcome, or "REVOKED"; in place of Celery's tracer.

    The app knows the task of `requests`.
    """
    known(rt, "tests.task")
    heard: dict[str, Any] = {}

    def resume(
        _app: Any, items: list[Resumption], _hostname: str, *, revoked: Any = (), **_: Any
    ) -> list[Resumed]:
        ends = []
        for item in items:
            task_id = item.request.task_id
            gone = task_id in revoked
            assert task_id not in heard, "a task was told twice"
            heard[task_id] = "REVOKED" if gone else item.outcome
            failed = isinstance(item.outcome, Exception)
            state = "REVOKED" if gone else "FAILURE" if failed else "SUCCESS"
            ends.append(Resumed(item.custom_id, state))  # type: ignore[arg-type]
        return ends

    monkeypatch.setattr(finishing, "resume", resume)
    return heard


def known(rt: runtime.Runtime, name: str) -> None:
    """Gives the app a batch task of that name."""

    def function(text: str) -> str:
        return text

    rt.app.task(function, name=name, base=BatchTask, model="gpt-5-mini", shared=False)
    rt.app.finalize()


def requests(count: int, *, model: str = "gpt-5-mini", **body: Any) -> list[Request]:
    """`count` chat requests of as many tasks, with ids that no other test has."""
    run = uuid.uuid4().hex[:12]
    messages = [{"role": "user", "content": "The sea is wide. It is deep too."}]
    data = orjson.dumps({"model": model, "messages": messages, **body})
    lane = Lane(LANE.account, LANE.endpoint, model)
    return [
        Request(f"{run}-{n}.0.0", f"{run}-{n}", "tests.task", lane, data, b"envelope", 20)
        for n in range(count)
    ]


def sealed(rt: runtime.Runtime, given: list[Request]) -> str:
    """The id of a sealed batch that holds `given`."""
    assert rt.buffer.append(given).added == len(given)
    batch_id = rt.buffer.seal(given[0].lane.key, only_if_due=False)
    assert batch_id is not None
    return batch_id


def ended(rt: runtime.Runtime, batch_id: str) -> None:
    """Tracks a submitted batch until it ended."""

    def over() -> bool:
        track(rt, [batch_id])
        batch = rt.ledger.batch(batch_id)
        return batch is not None and batch.state == "ENDED"

    until(over, f"batch {batch_id} ended")


def billed(simulator: Simulator, given: list[Request]) -> list[int]:
    """How often each request was paid for."""
    report = {row["custom_id"]: row["billed"] for row in simulator.report()["requests"]}
    return [report.get(request.custom_id, 0) for request in given]


def row_of(rt: runtime.Runtime, request: Request) -> Any:
    (row,) = rt.ledger.task(request.task_id)
    return row


def cannot_end(why: str) -> Callable[..., list[Resumed]]:
    """In place of `resume`: no task can be ended; "away" when not even its state can be asked."""

    def resume(_app: Any, items: list[Resumption], *_: Any, **__: Any) -> list[Resumed]:
        if why == "away":
            raise ConnectionError("away")
        return [Resumed(item.custom_id, why) for item in items]  # type: ignore[arg-type]

    return resume
