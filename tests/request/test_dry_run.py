"""Dry runs: counted as it would be sent, and nothing is sent."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from lowtide import chat, dry_run
from lowtide.clock import SystemClock
from lowtide.forecast import Estimate
from lowtide.lane import Lane
from lowtide.ledger import BatchState, Ledger, NewBatch, NewRequest
from lowtide.prices import price
from lowtide.request import encode, to_call
from lowtide.task import BatchTask
from lowtide.tokens import Usage
from tests.ledger.support import advance, settle

_NAMES = itertools.count()
CHAT = "/v1/chat/completions"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Celery:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    # Nothing answers at these addresses.
    app = Celery("dry", broker="redis://localhost:1/0", set_as_current=False)
    app.conf.lowtide = {"database_url": "sqlite:////nowhere/x.db"}
    return app


def made(app: Celery, function: Any, **options: Any) -> BatchTask:
    name = f"dry.{next(_NAMES)}"
    return app.task(base=BatchTask, name=name, shared=False, **options)(function)


def ask(text: str, *, most: int | None = None) -> Any:
    if not text:
        raise ValueError("There is nothing to ask.")
    return chat(text) if most is None else chat(text, max_completion_tokens=most)


def test_tokens_and_costs_are_those_of_the_requests(app: Celery) -> None:
    task = made(app, ask, model="gpt-5-mini")
    texts = [f"Text {n} " + "word " * 100 for n in range(20)]

    found = dry_run(task, texts, output_tokens=50)

    expected = sum(
        encode(to_call(chat(t, model="gpt-5-mini")), account="default")[2] for t in texts
    )
    usage = Usage(expected, 0, 50 * 20)
    assert (found.calls, found.requests, found.batches, found.refused) == (20, 20, 1, {})
    assert found.input_tokens == expected
    assert found.output_tokens == 1_000
    assert found.cost == pytest.approx(price("gpt-5-mini", CHAT, usage, tier="batch"))
    assert found.full_price == pytest.approx(price("gpt-5-mini", CHAT, usage, tier="standard"))
    assert found.bytes > sum(len(text) for text in texts)


def test_what_is_unknown_is_not_made_up(app: Celery) -> None:
    open_end = dry_run(made(app, ask, model="gpt-5-mini"), ["x"])
    unpriced = dry_run(made(app, ask, model="nobody-knows"), ["x"], output_tokens=5)

    assert (open_end.output_tokens, open_end.cost, open_end.full_price) == (None, None, None)
    assert open_end.input_cost
    assert (unpriced.input_cost, unpriced.cost) == (None, None)
    assert unpriced.output_tokens == 5


def test_the_requests_own_limits_bound_the_answers(app: Celery) -> None:
    found = dry_run(
        made(app, ask, model="gpt-5-mini"), [{"text": "x", "most": 7}, {"text": "y", "most": 3}]
    )

    assert found.output_tokens == 10
    assert found.cost


def test_calls_that_would_fail_are_counted_by_reason(app: Celery) -> None:
    found = dry_run(made(app, ask), ["", "", "x"], output_tokens=1)

    assert found.requests == 0
    assert found.refused is not None
    assert found.refused["ValueError: There is nothing to ask."] == 2
    assert [n for reason, n in found.refused.items() if "names no model" in reason] == [1]


def test_a_generator_counts_with_its_first_request(app: Celery) -> None:
    def steps(text: str) -> Any:
        if text == "known":
            return "known"
        first = yield chat(text)
        yield chat(first.text)

    found = dry_run(made(app, steps, model="gpt-5-mini"), ["x", "known"], output_tokens=1)

    assert (found.calls, found.requests) == (2, 1)


def test_batches_are_counted_as_buffers_are_sealed(app: Celery) -> None:
    app.conf.lowtide = {**app.conf.lowtide, "max_requests": 4}

    found = dry_run(made(app, ask, model="gpt-5-mini"), ["x"] * 9, output_tokens=1)

    assert found.batches == 3


def test_no_call_costs_nothing(app: Celery) -> None:
    assert dry_run(made(app, ask, model="gpt-5-mini"), []) == Estimate(refused={})


def known(app: Celery, tmp_path: Path, task: BatchTask, **first: Any) -> None:
    """A ledger in which two calls of `task` were answered, one of them asked once more."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    app.conf.lowtide = {"database_url": url}
    ledger = Ledger(url, SystemClock())
    ledger.create()
    lane = Lane("default", CHAT, "gpt-5-mini")
    names = ["a.0.0", "b.0.0", "a.0.1"]
    rows = [NewRequest(name, name[0], task.name, b"", 100) for name in names]
    ledger.record(NewBatch("b1", lane, 1, 1.0), rows)
    advance(ledger, "b1", BatchState.FETCHED)
    booked = {"input_tokens": 50, "output_tokens": 10, "cost": 0.1, "full_price": 0.2, **first}
    settle(ledger, "b1", names, **booked)
    ledger.close_if_done("b1")
    ledger.close()


def test_what_the_last_batches_used_is_learned_from(app: Celery, tmp_path: Path) -> None:
    task = made(app, ask, model="gpt-5-mini")
    before = dry_run(task, ["x" * 3_000])
    other = made(app, ask, model="gpt-5-mini")
    known(app, tmp_path, task)
    app.__dict__["lowtide_runtime"].__dict__.pop("settings")

    found = dry_run(task, [{"text": "x" * 3_000, "most": 500}])

    assert found.input_tokens == pytest.approx(before.input_tokens / 2, rel=0.02)
    assert found.output_tokens == 10
    assert found.cost
    assert dry_run(task, ["x"], output_tokens=7).output_tokens == 7
    assert dry_run(other, [{"text": "x", "most": 500}]).output_tokens == 500


def two(text: str) -> Any:
    first = yield chat(text)
    yield chat(first.text)


def test_later_requests_of_a_generator_are_unknown_or_as_its_last_calls_made(
    app: Celery, tmp_path: Path
) -> None:
    task = made(app, two, model="gpt-5-mini")
    unknown = dry_run(task, ["x"] * 4, output_tokens=1)
    assert (unknown.requests, unknown.later_requests) == (4, None)
    assert unknown.cost
    known(app, tmp_path, task)
    app.__dict__["lowtide_runtime"].__dict__.pop("settings")

    found = dry_run(task, ["x"] * 4, output_tokens=1)

    assert (found.requests, found.later_requests) == (4, 2)
    assert found.output_tokens == 4 + 4 * 10 / 2
    assert found.cost == pytest.approx(4 * 0.1 / 2, rel=0.01)
    assert found.full_price == pytest.approx(4 * 0.2 / 2, rel=0.01)


def test_unknown_prices_of_later_requests_stay_unknown(app: Celery, tmp_path: Path) -> None:
    task = made(app, two, model="gpt-5-mini")
    known(app, tmp_path, task, cost=None)

    found = dry_run(task, ["x"], output_tokens=1)

    assert (found.later_requests, found.cost, found.full_price) == (0, None, None)
    assert found.input_cost


def test_a_ledger_that_is_not_there_is_not_made(app: Celery, tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/none.db", "postgresql://localhost:1/none"):
        app.conf.lowtide = {"database_url": url}
        assert dry_run(made(app, two, model="gpt-5-mini"), ["x"]).later_requests is None
        app.__dict__["lowtide_runtime"].__dict__.pop("settings", None)

    assert list(tmp_path.iterdir()) == []
