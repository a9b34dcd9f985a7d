"""Errors keep what they know on every way to the client."""

from __future__ import annotations

import pickle
from typing import Any

from celery import Celery

from lowtide import attempts, errors
from lowtide.errors import AttemptsExhausted, LowtideError
from lowtide.ledger import Attempt

MADE = [
    Attempt(0.0, "b1", "batch_1", 429, "rate_limit_exceeded", "Slow down.\nPlease."),
    Attempt(60.0, "b2", None, None, "expired", None),
]


def error(made: list[Attempt]) -> AttemptsExhausted:
    return AttemptsExhausted(attempts.line(made), {"attempts": attempts.told(made)})


def test_the_line_tells_when_where_and_why() -> None:
    assert str(error(MADE)) == (
        "1. 1970-01-01T00:00:00Z in batch_1: 429 rate_limit_exceeded (Slow down. Please); "
        "2. 1970-01-01T00:01:00Z in b2: expired"
    )


def test_the_line_stays_short_and_the_list_whole() -> None:
    long = [Attempt(0.0, f"b{n}", None, 500, "server_error", "word " * 60) for n in range(40)]

    found = error(long)

    assert str(found).startswith("34 earlier ones; 35. ")
    assert len(str(found)) < 1_200
    assert len(found.attempts) == 40


def test_a_result_backend_gives_it_back() -> None:
    app = Celery("errors", backend="cache+memory://", set_as_current=False)
    app.backend.store_result("t1", error(MADE), "FAILURE")

    found: Any = app.AsyncResult("t1").result

    assert isinstance(found, AttemptsExhausted)
    assert found.args == error(MADE).args
    assert [each["code"] for each in found.attempts] == ["rate_limit_exceeded", "expired"]


def test_pickle_gives_it_back() -> None:
    assert pickle.loads(pickle.dumps(error(MADE))).args == error(MADE).args


def test_no_repr_shows_details() -> None:
    named = [each for each in vars(errors).values() if isinstance(each, type)]
    kinds = [each for each in named if issubclass(each, LowtideError)]
    shown = [repr(kind("It failed.", {"text": "secret"})) for kind in kinds]

    assert shown
    assert not any("secret" in each for each in shown)
