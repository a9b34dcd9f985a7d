"""Results go to webhooks, streams and named backends, through refusals and killed workers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import chord, group
from celery.result import AsyncResult

from lowtide import RequestRejected, SettingsError, control, failpoints, named_backend, runtime
from lowtide.connect import connect
from lowtide.ledger import BatchState
from lowtide.replay import replay
from tests.outbox.receiver import Receiver
from tests.plugins.postgres import PostgresServer
from tests.plugins.redis import started_redis
from tests.plugins.stack import Stack, client_of, deployment, until

pytestmark = pytest.mark.slow
MODULE = "tests.outbox.app"
SECRET = "whsec_bG93dGlkZS10ZXN0cy1vdXRib3g="


@dataclass
class World:
    """Workers, the client's app, and those who are told."""

    stack: Stack
    client: Any
    crm: Receiver
    armed: Path

    @property
    def rt(self) -> runtime.Runtime:
        return runtime.of(self.client.app)

    def fed(self) -> dict[str, dict[str, Any]]:
        """Task id → message in the stream."""
        entries: Any = connect(self.stack.redis_url).xrange("feed")
        bodies = [json.loads(fields[b"body"]) for _, fields in entries]
        return {body["data"]["task_id"]: body for body in bodies}

    def all_told(self) -> bool:
        return self.rt.ledger.backlogs() == []

    def kill_at(self, place: str) -> Path:
        """Kills the whole worker when it gets to `place`; gives what is there then."""
        (self.armed / place).write_text(failpoints.WORKER)
        return self.armed / (place + failpoints.FIRED)


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> Iterator[World]:
    redis = started_redis(tmp_path_factory.mktemp("redis"))
    crm = Receiver(SECRET)
    postgres_server.execute("CREATE DATABASE archive")
    archive = postgres_server.url("archive").split("://", 1)[1]
    folder = tmp_path_factory.mktemp("stack")
    armed = folder / "armed"
    armed.mkdir()
    env = {
        "LOWTIDE_RESULTS": json.dumps(
            {
                "archive": f"db+postgresql+psycopg://{archive}",
                "other": redis.url.removesuffix("/0") + "/7",
            }
        ),
        "LOWTIDE_DESTINATIONS": json.dumps(
            {
                "crm": {"webhook": crm.url, "secret_env": "CRM_SECRET"},
                "feed": {"stream": "feed", "maxlen": "1k"},
            }
        ),
        "CRM_SECRET": SECRET,
        "LOWTIDE_LEASE": "3s",
        "LOWTIDE_KEEP_RESULTS": "1h",
        failpoints.VARIABLE: str(armed),
    }
    with deployment(folder, redis.url) as stack, pytest.MonkeyPatch.context() as patch:
        stack.env |= env
        for name, value in env.items():
            patch.setenv(name, value)
        client = client_of(MODULE)
        stack.worker(MODULE)
        stack.ready(client.app)
        yield World(stack, client, crm, armed)
    redis.stop()
    crm.stop()


def test_a_webhook_is_sent_until_it_is_accepted(world: World) -> None:
    world.crm.statuses[:] = [503, 500, 429]
    call = world.client.told.delay("The tide is low.")
    bad = world.client.bad.apply_async(("The buoy is green.",), deliver_to=["crm", "feed"])

    assert call.get(timeout=60) == "The tide is low."
    body = until(lambda: world.crm.of(call.id), "it is told")
    failed = until(lambda: world.crm.of(bad.id), "the failure is told")

    assert body["type"] == "task.succeeded"
    assert body["data"]["result"] == "The tide is low."
    assert body["data"]["error"] is None
    (row,) = world.rt.ledger.task(call.id)
    assert body["data"]["request"] == row.custom_id
    assert body["data"]["batch"] == row.batch_id
    assert row.custom_id in world.crm.accepted
    assert sum(world.crm.tries.values()) == 5
    assert failed["type"] == "task.failed"
    assert failed["data"]["error"]["type"] == "RequestRejected"
    assert failed["data"]["error"]["details"]["status"] == 400
    assert failed == until(lambda: world.fed().get(bad.id), "the stream has it")
    assert world.crm.forged == 0
    until(world.all_told, "nothing waits")


def test_a_named_backend_has_the_result_as_celery_stores_it(world: World) -> None:
    tasks = world.client
    call = tasks.archived.delay("The pier is long.")
    bad = tasks.bad.apply_async(("The buoy is red.",), result_backend="other")
    silent = tasks.silent.apply_async(("The sea is flat.",), result_backend="other")
    many = chord(group(tasks.archived.s(f"Wave {n}.") for n in range(3)), tasks.count.s())()

    assert call.get(timeout=60) == {"summary": "The pier is long.", "of": "The pier is long."}
    with pytest.raises(RequestRejected):
        bad.get(timeout=60)
    assert silent.get(timeout=60) == ["The sea is flat.", "The sea is flat."]
    assert many.get(timeout=60) == 3

    archive = named_backend("archive", tasks.app)
    read = AsyncResult(call.id, backend=archive, app=tasks.app)
    assert read.get(timeout=60) == call.result
    assert read.date_done is not None
    assert type(call.backend).__name__ == "DatabaseBackend"
    assert AsyncResult(call.id, app=tasks.app).get(timeout=60) == call.result
    assert AsyncResult(silent.id, app=tasks.app).state == "PENDING"
    other = AsyncResult(bad.id, backend=named_backend("other", tasks.app), app=tasks.app)
    assert other.state == "FAILURE"
    assert other.result.details["status"] == 400


@pytest.mark.parametrize("place", ["deliver.settled", "tell.written", "tell.sent", "tell.noted"])
def test_a_worker_that_is_killed_loses_nothing(world: World, place: str) -> None:
    fired = world.kill_at(place)
    calls = [world.client.told.delay(f"Gull {n} is loud.") for n in range(6)]
    until(fired.exists, f"a worker is killed at {place}")
    world.stack.workers.pop().wait(30)
    world.stack.worker(MODULE, name=f"after-{place}")

    answers = {call.id: call.get(timeout=60) for call in calls}
    for call in calls:
        body = until(partial(world.crm.of, call.id), "it is told", 90)
        assert body["data"]["result"] == answers[call.id]
    until(world.all_told, "nothing waits")
    fired.unlink()


@pytest.mark.parametrize("countdown", [None, 0.1], ids=["together", "alone"])
def test_a_task_that_asks_nothing_is_told_too(world: World, countdown: float | None) -> None:
    """Accepted with others, or by itself in Celery's ordinary way, as one with an ETA is."""
    failed = world.client.unaskable.apply_async(("no prompt",), countdown=countdown)
    known = world.client.known.apply_async(("ebb",), countdown=countdown)
    unknown = world.client.plain.apply_async(
        ("x",), countdown=countdown, deliver_to=["crm", "nobody"]
    )

    assert known.get(timeout=60) == "EBB"
    body = until(lambda: world.crm.of(failed.id), "the failure is told")
    named = until(lambda: world.crm.of(unknown.id), "the one with a wrong name is told")

    assert body["data"]["error"] == {"type": "KeyError", "message": "no prompt", "details": {}}
    assert body["data"]["batch"] is None
    assert until(lambda: world.fed().get(known.id), "fed")["data"]["result"] == "EBB"
    assert until(lambda: world.fed().get(failed.id), "fed") == body
    assert named["data"]["error"]["type"] == "SettingsError"
    with pytest.raises(SettingsError, match=r"No destination is named 'nobody'.*crm, feed"):
        unknown.get(timeout=60)
    assert world.rt.ledger.task(unknown.id) == []
    until(world.all_told, "nothing waits")


def test_a_replay_tells_again_what_was_told_and_what_was_lost(world: World) -> None:
    tasks = world.client
    told = tasks.told.delay("The quay is old.")
    silent = tasks.silent.apply_async(("The bell rings.",), result_backend="archive")
    lost = tasks.plain.apply_async(("The mast is tall.",), deliver_to=["crm", "feed"])
    bad = tasks.bad.delay("The flag is torn.")
    calls = [told, silent, lost, bad]
    assert [call.get(timeout=60, propagate=False) for call in calls]
    rows = [world.rt.ledger.task(call.id)[0] for call in calls]
    batches = {row.batch_id for row in rows}
    until(lambda: world.crm.of(lost.id) and world.fed().get(lost.id), "told")
    until(world.all_told, "nothing waits")
    until(lambda: all(delivered(world, name) for name in batches), "delivered")
    first = {call.id: said(world.crm.of(call.id)) for call in (told, lost)}
    refused = AsyncResult(bad.id, app=tasks.app).result
    connect(world.stack.redis_url).delete(*(f"celery-task-meta-{x.id}" for x in (lost, bad)))
    archive = named_backend("archive", tasks.app)
    archive.forget(silent.id)
    connect(world.stack.redis_url).delete("feed")
    world.crm.accepted.clear()
    world.crm.tries.clear()

    found = [replay(world.rt, name) for name in sorted(batches)]

    told_again = sum((each.told for each in found), Counter[str]())
    assert told_again == {"crm": 2, "feed": 1, "results:archive": 1}
    assert sum(each.stored for each in found) == 2
    until(world.all_told, "nothing waits")
    assert {call.id: said(world.crm.of(call.id)) for call in (told, lost)} == first
    assert set(world.crm.tries) == {rows[0].custom_id, rows[2].custom_id}
    assert said(world.fed()[lost.id]) == first[lost.id]
    assert AsyncResult(lost.id, app=tasks.app).result == "The mast is tall."
    again = AsyncResult(bad.id, app=tasks.app).result
    assert isinstance(again, RequestRejected)
    assert again.args == refused.args
    again = AsyncResult(silent.id, backend=archive, app=tasks.app)
    assert again.result == ["The bell rings.", "The bell rings."]


def test_a_revoke_is_told_too(world: World) -> None:
    control.pause(world.rt, "default", "so that it waits")
    call = world.client.told.delay("The reef is near.")
    until(lambda: call.state == "BUFFERED", "it is accepted")

    call.revoke()
    body = until(lambda: world.crm.of(call.id), "it is told")
    control.resume(world.rt, "default")

    assert (body["type"], body["data"]["state"]) == ("task.revoked", "REVOKED")
    assert body["data"]["error"]["type"] == "TaskRevokedError"
    until(world.all_told, "nothing waits")


def said(body: Any) -> Any:
    """A message without its time, which is told to the millisecond."""
    return (body["type"], body["data"])


def delivered(world: World, batch_id: str) -> bool:
    batch = world.rt.ledger.batch(batch_id)
    return batch is not None and batch.state == BatchState.DELIVERED


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_all_are_told_on_every_pool(world: World, pool: str) -> None:
    world.stack.stop_workers()
    world.stack.worker(MODULE, name=pool, pool=pool)
    world.stack.ready(world.client.app)
    world.crm.statuses[:] = [503]

    calls = [
        world.client.plain.apply_async(
            (f"Pool {n} is deep.",), deliver_to=["crm", "feed"], result_backend="archive"
        )
        for n in range(12)
    ]

    answers = {call.id: call.get(timeout=60) for call in calls}
    until(world.all_told, "nothing waits")
    heard = {call.id: world.crm.of(call.id) for call in calls}
    assert {name: body and body["data"]["result"] for name, body in heard.items()} == answers
    assert {name: world.fed()[name]["data"]["result"] for name in answers} == answers
