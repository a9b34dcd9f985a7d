"""A whole run with a marked key and marked prompts: neither shows where people and machines look."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.exceptions import RedisError
from sqlalchemy import select

from lowtide import metrics, runtime
from lowtide.ledger.tables import BATCHES, REQUESTS
from tests.chaos.client import Client
from tests.chaos.conftest import client_app, started
from tests.chaos.deployment import Deployment
from tests.chaos.invariants import check, settled
from tests.plugins.stack import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
KEY = "sk-marked-7f3a91"
PROMPT = "Marzipan-4711"
# Only batch tasks: what Celery logs of the arguments and results of others is not lowtide's.
KINDS = {"plain": 8, "steps": 3, "bad": 3, "many": 1, "twice": 1}


class Marked(Client):
    """A client whose prompts can be found again."""

    def _text(self) -> str:
        return f"{super()._text()[:-1]} with {PROMPT}."


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Deployment, Marked, list[Any]]]:
    folder = tmp_path_factory.mktemp("leaks")
    with pytest.MonkeyPatch.context() as patch:
        faults = ("--fault", "line_error count=2 status=500", "--fault", "error_after count=1")
        deployment = started(
            folder,
            simulator=faults,
            flags=("-c", "2", "-E"),
            env={"OPENAI_API_KEY": KEY, "LOWTIDE_MAX_REQUESTS": "10"},
        )
        try:
            client = Marked(client_app(deployment.valkey.url, patch), seed=1)
            events = _heard(client.app)
            deployment.ready(client.app)
            for kind, count in KINDS.items():
                client.send(kind, count)
            # A worker that dies has things to say, too.
            deployment.workers[0].children()[0].kill()
            until(lambda: settled(deployment, client), "all settles", timeout=90)
            yield deployment, client, events
        finally:
            deployment.stop()


def _heard(app: Any) -> list[Any]:
    """Every event of the run, as Flower would get it."""
    events: list[Any] = []

    def listen() -> None:
        # It ends with the server that it listens to.
        with contextlib.suppress(OSError, RedisError), app.connection() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": events.append})
            receiver.capture(limit=None, timeout=120, wakeup=True)

    threading.Thread(target=listen, daemon=True).start()
    return events


def found(text: str) -> list[str]:
    return [marker for marker in (KEY, PROMPT) if marker in text]


def test_the_run_was_right(run) -> None:
    deployment, client, events = run
    assert check(deployment, client).violations == {}
    assert {"task-received", "task-succeeded"} <= {event["type"] for event in events}


def test_logs(run) -> None:
    deployment, _, _ = run
    for worker in deployment.workers:
        lines = [line for line in worker.log.read_text().splitlines() if found(line)]
        assert lines == []


def test_events(run) -> None:
    _, _, events = run
    assert [event for event in events if found(repr(event))] == []


def test_metrics(run) -> None:
    deployment, client, _ = run
    client.app.conf.lowtide = {
        "redis_url": deployment.valkey.url,
        "database_url": deployment.ledger_url,
    }
    assert found(metrics.render(runtime.of(client.app)).decode()) == []


def test_errors_of_calls(run) -> None:
    deployment, client, _ = run
    from tests.chaos.client import results

    failed = [
        r for r in results(deployment.redis, client.expected).values() if r["status"] == "FAILURE"
    ]
    assert failed
    assert [meta for meta in failed if found(orjson.dumps(meta).decode())] == []


def test_redis_keys_and_what_is_no_payload(run) -> None:
    """Names of all keys, and all values of lowtide's own: its buffers are empty by now."""
    deployment, _, _ = run
    redis: Any = deployment.redis
    names = [key.decode() for key in redis.keys("*")]
    assert [name for name in names if found(name)] == []
    ours = [name for name in names if name.startswith("{lowtide}:")]
    dumps = {name: redis.dump(name).decode("latin-1") for name in ours}
    assert [name for name, value in dumps.items() if found(value)] == []


def test_columns_of_the_ledger_that_are_no_payload(run) -> None:
    deployment, _, _ = run
    from lowtide.clock import SystemClock
    from lowtide.ledger import Ledger

    shown = [column for column in REQUESTS.c if column.name != "blob"]
    with Ledger(deployment.ledger_url, SystemClock())._db.read() as connection:
        rows = [*connection.execute(select(*shown)), *connection.execute(select(BATCHES))]
    assert rows
    assert [row for row in rows if found(repr(row))] == []


def test_files_in_the_home_folder(run) -> None:
    """The spool is empty: no prompt lies about once a step is over."""
    deployment, _, _ = run
    spool = Path(deployment.folder) / "home" / "spool"
    assert list(spool.rglob("*.jsonl")) == []
