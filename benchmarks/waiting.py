"""From the moment an answer is ready at the provider to the return of `.get()`, by webhook."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import time
from collections.abc import Iterator

import httpx2

from benchmarks.figure import Figure
from benchmarks.options import Options
from benchmarks.stack import Stack, stack

_LOOK = 0.005
_PATIENCE = 60.0
_SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes ok!").decode()


def run(options: Options) -> Iterator[Figure]:
    """Single calls, each in a batch of its own that takes 2 s, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    hook = f"http://127.0.0.1:{port}/webhooks/openai"
    flags = ("--delay", "2s", "--webhook", hook, "--webhook-secret", _SECRET)
    with stack(flags=flags) as running:
        _deploy(running, port)
        waits = [_wait(running, number) for number in range(3 + 4 * options.rounds)]
    yield Figure(
        "answer ready at the provider to `.get()` returns, by webhook",
        "",
        50.0,
        waits[3:],
        unit="ms",
        note="all on one machine; seen ready by a look every 5 ms",
    )


def _deploy(running: Stack, port: int) -> None:
    os.environ |= {
        "LOWTIDE_REDIS_URL": f"{running.redis}/5",
        "LOWTIDE_HOME": str(running.folder / "home"),
        "LOWTIDE_MAX_WAIT": "100ms",
        "LOWTIDE_TICK": "100ms",
        "LOWTIDE_POLL_MIN": "30s",
        "LOWTIDE_ACCOUNTS": json.dumps({"default": {"webhook_secret": _SECRET}}),
    }
    running.worker("batch0", "worker.app:app", processes=2)
    running.start("web", "worker.web", "--port", str(port), mark="READY")


def _wait(running: Stack, number: int) -> float:
    """Milliseconds from the first look that shows the batch completed."""
    from worker.app import app

    task = app.signature("tasks.prompt", args=[f"Say the number {number}."])
    ready: list[float] = []
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(running.provider, ready, over))
    watcher.start()
    try:
        task.delay().get(timeout=_PATIENCE)
        returned = time.monotonic()
        watcher.join(_PATIENCE)
    finally:
        over.set()
        watcher.join()
    return max(0.0, (returned - ready[0]) * 1e3)


def _watch(url: str, ready: list[float], over: threading.Event) -> None:
    """Notes when the newest batch, if it is not known yet, is completed."""
    key = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    with httpx2.Client(base_url=url, headers=key) as client:
        while not over.wait(_LOOK):
            batches = client.get("/batches", params={"limit": 1}).json()["data"]
            if batches and batches[0]["status"] == "completed" and batches[0]["id"] not in _seen:
                ready.append(time.monotonic())
                _seen.add(batches[0]["id"])
                return


_seen: set[str] = set()
