"""The fixtures that bring Celery: an app, a worker in a thread, workers as processes."""

from __future__ import annotations

import signal

import pytest
from celery import Celery, current_app

from lowtide import batch_task
from lowtide.testing import (
    lowtide_app,
    lowtide_redis,
    lowtide_stack,
    lowtide_worker,
    lowtide_worker_process,
)

__all__ = [
    "lowtide_app",
    "lowtide_redis",
    "lowtide_stack",
    "lowtide_worker",
    "lowtide_worker_process",
]

SHOP = """
import os
from celery import Celery
from lowtide import batch_task

app = Celery(
    "shop",
    broker=os.environ["LOWTIDE_BROKER_URL"],
    backend=os.environ["LOWTIDE_RESULT_BACKEND"],
)

@batch_task(name="shop.summarize", model="gpt-5-mini")
def summarize(text):
    return f"Summarise:\\n\\n{text}"
"""


@batch_task(name="fixtures.summarize", model="gpt-5-mini")
def summarize(text):
    return f"Summarise:\n\n{text}"


@pytest.mark.slow
def test_a_task_runs_on_a_worker_in_a_thread(lowtide_app, lowtide_worker, batch_server):
    assert current_app._get_current_object() is lowtide_app
    results = [summarize.delay(f"The tide number {n} is low.") for n in range(20)]
    assert [r.get(timeout=60) for r in results] == [
        f"The tide number {n} is low." for n in range(20)
    ]
    assert batch_server.totals()["billed"] == 20


@pytest.mark.slow
def test_workers_as_processes_can_be_killed(
    lowtide_app, lowtide_worker_process, batch_server, tmp_path, monkeypatch
):
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for number in (1, 2):
        worker = lowtide_worker_process("shop", "-c", "1")
        result = lowtide_app.send_task("shop.summarize", [f"The boat number {number} is red."])
        assert result.get(timeout=60) == f"The boat number {number} is red."
        worker.send_signal(signal.SIGKILL)
        assert worker.wait(10) == -signal.SIGKILL
    assert batch_server.totals()["billed"] == 2


def test_an_app_of_ones_own_is_configured(lowtide_stack):
    app = lowtide_stack.configure(Celery("mine"))
    assert app.conf.broker_url == lowtide_stack.redis_url
    assert app.conf.lowtide["accounts"]["default"]["base_url"] == lowtide_stack.base_url
    environment = lowtide_stack.environment()
    assert environment["OPENAI_BASE_URL"] == lowtide_stack.base_url
    assert environment["LOWTIDE_TICK"] == "0.1s"
