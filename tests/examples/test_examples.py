"""The examples as their readers start them: a worker, a server, and somebody who asks."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.plugins.stack import ROOT, Stack, ended_by_pid, until

pytestmark = pytest.mark.slow
EXAMPLES = ROOT / "examples"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(stack: Stack) -> Iterator[Callable[..., httpx2.Client]]:
    """Starts an example's worker and server; gives a client of the server."""
    running: list[subprocess.Popen[bytes]] = []

    def run(folder: Path, name: str, *command: str) -> subprocess.Popen[bytes]:
        log = (stack.folder / f"{name}.log").open("ab")
        env = {**os.environ, **stack.env, "HELPDESK_DB": str(stack.folder / "helpdesk.db")}
        process = subprocess.Popen(
            [sys.executable, "-m", *command]
            if command[0] != "manage.py"
            else [sys.executable, *command],
            cwd=folder,
            env={**env, "PYTHONPATH": str(folder)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        return process

    @contextmanager
    def patience(what: str):
        try:
            yield
        except AssertionError:
            raise AssertionError(f"{what}\n{stack.logs()}") from None

    def begin(example: str, celery_app: str, *server: str) -> httpx2.Client:
        folder = EXAMPLES / example
        if example == "django_app":
            assert run(folder, "migrate", "manage.py", "migrate").wait(60) == 0, stack.logs()
        worker = [
            "celery",
            "-A",
            celery_app,
            "worker",
            "-c",
            "1",
            "--without-gossip",
            "--without-mingle",
        ]
        running.append(run(folder, "worker", *worker, "-l", "INFO"))
        port = str(free_port())
        running.append(run(folder, "server", *(part.replace("PORT", port) for part in server)))
        client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)

        def answers() -> bool:
            assert all(process.poll() is None for process in running), "a program ended"
            try:
                client.get("/nowhere")
            except httpx2.TransportError:
                return False
            return " ready." in (stack.folder / "worker.log").read_text()

        with patience(f"{example} does not start"):
            until(answers, "worker and server are up")
        return client

    yield begin
    for process in reversed(running):
        ended_by_pid(process)


def test_fastapi(start) -> None:
    client = start("fastapi_app", "jobs", "uvicorn", "main:app", "--port", "PORT")

    task_id = client.post("/summaries", json={"text": "The tide is low."}).json()["id"]
    seen = until(lambda: _ended(client.get(f"/summaries/{task_id}").json()), "the summary is there")
    digest = client.post("/digests", json={"texts": [f"Boat {n} is red." for n in range(5)]}).json()
    with client.stream("GET", f"/digests/{digest['id']}/stream") as answer:
        streamed = "".join(answer.iter_text())
    progress = client.get(f"/digests/{digest['id']}").json()

    assert seen == {"state": "SUCCESS", "summary": "The tide is low."}
    assert sorted(re.findall(r"id: (\d)\ndata: (.*)", streamed)) == [
        (str(n), f"Boat {n} is red.") for n in range(5)
    ]
    assert (progress["done"], progress["total"]) == (5, 5)


def test_flask(start) -> None:
    client = start("flask_app", "jobs", "flask", "--app", "main", "run", "--port", "PORT")

    sent = client.post("/", data={"lines": "The pier is long.\n\nThe <b>buoy</b> is green."})
    page = f"{sent.headers['location']}"
    text = until(
        lambda: found if "2 of 2" in (found := client.get(page).text) else None, "both are there"
    )

    assert sent.status_code == 302
    assert re.findall(r"<li>(.*?)</li>", text) == [
        "The pier is long.",
        "The &lt;b&gt;buoy&lt;/b&gt; is green.",
    ]


def test_django(start) -> None:
    client = start(
        "django_app", "helpdesk", "manage.py", "runserver", "--noreload", "127.0.0.1:PORT"
    )

    mail_id = client.post("/mails/", json={"text": "Subject: flood. Help."}).json()["id"]
    known = until(
        lambda: found if (found := client.get(f"/mails/{mail_id}/").json())["subject"] else None,
        "the mail is sorted",
    )

    assert isinstance(known["urgent"], bool)
    assert known["trouble"] == ""


def _ended(found: dict[str, str]) -> dict[str, str] | None:
    assert found["state"] in ("PENDING", "BUFFERED", "SUBMITTED", "SUCCESS")
    return found if found["state"] == "SUCCESS" else None
