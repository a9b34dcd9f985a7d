"""Spend caps with real workers: a held call says why everywhere, and goes on when it may."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from lowtide import control, runtime
from tests.plugins.stack import Stack, client_of, until

pytestmark = pytest.mark.slow
MODULE = "tests.checks.capped_app"


def status(stack: Stack) -> str:
    """What `lowtide status` prints."""
    command = [sys.executable, "-m", "lowtide.cli", "status", "--json"]
    env = {**os.environ, **stack.env}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_call_over_its_tasks_cap_waits_and_says_why(stack: Stack, tmp_path: Path) -> None:
    stack.env["LOWTIDE_TASK_SPEND_CAPS"] = '{"caps.capped": 0}'
    # Both calls in one batch.
    stack.env["LOWTIDE_MAX_WAIT"] = "2s"
    stack.worker(MODULE)
    client = client_of(MODULE)
    stack.ready(client.app)
    tail = uuid.uuid4().hex[:16]

    free = client.free.apply_async(["The boat is red."], task_id=f"free-{tail}")
    held = client.capped.apply_async(["The boat is blue."], task_id=f"held-{tail}")

    assert free.get(timeout=60) == "The boat is red."
    where = until(lambda: (found := held.info) and found["batch_state"] == "HELD" and found, "held")
    assert held.state == "BUFFERED"
    assert where["reason"].startswith("spend cap of $0.00 a day for task caps.capped: $0.00 is")
    batches = json.loads(status(stack))["batches"]
    assert [batch["reason"] for batch in batches] == [where["reason"]]

    stack.stop_workers()
    del stack.env["LOWTIDE_TASK_SPEND_CAPS"]
    stack.worker(MODULE, name="w2")
    control.retry(runtime.of(client.app), where["batch"])

    assert held.get(timeout=60) == "The boat is blue."
    assert held.info == "The boat is blue."
