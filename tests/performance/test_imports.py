"""What an app that only sends tasks loads, told by the list of modules."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "alembic",
    "cryptography",
    "genai_prices",
    "httpx2",
    "msgspec",
    "openai",
    "opentelemetry",
    "pydantic",
    "pydantic_settings",
    "redis",
    "rich",
    "sqlalchemy",
    "sqlmodel",
    "typer",
    "zstandard",
)
APP = """
import sys
from celery import Celery
app = Celery("shop", broker="memory://", backend="cache+memory://")
from lowtide import batch_task
@batch_task(name="ask", model="gpt-5-mini", deadline="6h")
def ask(text): return text
app.finalize()
{then}
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


@pytest.mark.parametrize(
    "then", ["pass", "ask.delay('a')", "ask.s('a')"], ids=["define", "delay", "signature"]
)
def test_an_app_that_sends_loads_nothing_heavy(then: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", APP.format(then=then)], capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stderr
    assert set(ran.stdout.split()).intersection(HEAVY) == set()


def test_tasks_are_imported_into_an_app_that_is_finished() -> None:
    code = """
from celery import Celery, _state
app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
app.finalize()
import tasks.summarize
assert "tasks.summarize" in app.tasks
assert _state.default_app is None, "an app was made on the way"
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr
