"""The page as a program beside a worker: the provider's webhook ends the wait."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.plugins.stack import ROOT, Stack, deployment, ended_by_pid
from tests.web.conftest import SECRET

pytestmark = pytest.mark.slow


@pytest.fixture
def stack(tmp_path: Path, redis_url: str) -> Iterator[Stack]:
    """A provider that takes a moment: of a batch whose id is not noted yet a poll would tell."""
    with deployment(tmp_path, redis_url, "--delay", "3s") as stack:
        yield stack


@pytest.fixture
def page(stack: Stack, monkeypatch):
    """`python -m worker.web` on a free port, its URL."""
    more = {
        "OPENAI_WEBHOOK_SECRET": SECRET,
        "LOWTIDE_BROKER_URL": stack.redis_url,
        "LOWTIDE_RESULT_BACKEND": stack.redis_url,
        # A poll would come long after the test is over.
        "LOWTIDE_POLL_MIN": "10m",
        "LOWTIDE_POLL_MAX": "10m",
    }
    stack.env.update(more)
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.web", "--port", "0"],
        env={**os.environ, **stack.env},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=(stack.folder / "page.log").open("ab"),
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "READY" in line, stack.logs()
    yield line.split()[-1]
    ended_by_pid(process)


def test_a_webhook_ends_the_wait(stack: Stack, page: str) -> None:
    from celery import Celery

    from lowtide import task_ref

    app = Celery("client", broker=stack.redis_url, backend=stack.redis_url, set_as_current=False)
    stack.worker("worker.app")
    stack.ready(app)
    made = httpx2.post(
        f"{stack.simulator.root}/simulator/webhooks",
        json={"url": f"{page}/webhooks/openai", "secret": SECRET},
    )
    made.raise_for_status()

    began = time.monotonic()
    answer = task_ref("tasks.prompt", app).delay("Say that the tide is low.").get(timeout=60)

    assert answer
    assert time.monotonic() - began < 60
    metrics = httpx2.get(f"{page}/metrics", timeout=30).text
    assert 'lowtide_webhooks_total{result="taken"} 1.0' in metrics
    assert httpx2.get(f"{page}/ready", timeout=30).status_code == 200


def test_it_is_not_served_to_others_without_a_token(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker.web", "--host", "0.0.0.0", "--port", "0"],
        env={**os.environ, **stack.env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 2
    assert "set LOWTIDE_WEB_TOKEN" in done.stderr
