"""What a call carries goes before what its task says, and nonsense is refused where it is given."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from celery import Celery

from lowtide import BatchTask, batch_task, carried


@pytest.fixture
def app() -> Celery:
    return Celery(f"app-{uuid.uuid4().hex}", broker="memory://", set_as_current=False)


def made(app: Celery, **options: Any) -> Any:
    def ask(text: str) -> str:
        return text

    return app.task(base=BatchTask, name="carried.ask", model="m", shared=False, **options)(ask)


def read(app: Celery, options: dict[str, Any], call: dict[str, Any]) -> carried.Carried:
    return carried.read(made(app, **options), carried.take(dict(call)))


def test_nothing_said_is_nothing_wanted(app: Celery) -> None:
    told = read(app, {}, {})

    assert (told.tenant, told.coalesce, told.cache, told.max_wait) == (None, False, None, None)


@pytest.mark.parametrize(
    ("task", "call", "found"),
    [
        ({"tenant": "acme"}, {}, ("acme", False, None, None)),
        ({"tenant": "acme"}, {"tenant": "globex"}, ("globex", False, None, None)),
        ({"coalesce": True}, {}, (None, True, None, None)),
        ({"coalesce": True}, {"coalesce": False}, (None, False, None, None)),
        ({}, {"coalesce": True}, (None, True, None, None)),
        ({"cache": "7d"}, {}, (None, False, 604_800.0, None)),
        ({"cache": "7d"}, {"cache": 0}, (None, False, None, None)),
        ({"cache": "7d"}, {"cache": False}, (None, False, None, None)),
        ({}, {"cache": "1h"}, (None, False, 3600.0, None)),
        ({"max_wait": 0}, {}, (None, False, None, 0.0)),
        ({"max_wait": "10s"}, {"max_wait": "1m"}, (None, False, None, 60.0)),
    ],
)
def test_the_call_goes_before_its_task(
    app: Celery, task: dict[str, Any], call: dict[str, Any], found: tuple[Any, ...]
) -> None:
    told = read(app, task, call)

    assert (told.tenant, told.coalesce, told.cache, told.max_wait) == found


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"tenant": 5}, TypeError, "tenant=5 is no str"),
        ({"tenant": "ac\0me"}, ValueError, "holds a NUL character or half an emoji"),
        ({"tenant": "\ud83d"}, ValueError, "holds a NUL character or half an emoji"),
        ({"cache": "soon"}, ValueError, "'soon' is not a duration"),
        ({"max_wait": "later"}, ValueError, "'later' is not a duration"),
    ],
)
def test_nonsense_is_refused_when_the_task_is_made_or_called(
    app: Celery, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        batch_task(model="m", **options)
    with pytest.raises(error, match=words):
        made(app, **options).name  # noqa: B018 - binds it
    with pytest.raises(error, match=words):
        made(app).apply_async(("x",), **options)


def test_a_misspelt_option_is_told(app: Celery) -> None:
    with pytest.raises(TypeError, match="did you mean 'coalesce'"):
        batch_task(model="m", coalesse=True)
