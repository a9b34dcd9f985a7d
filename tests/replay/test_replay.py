"""Replay: what the result backend lost is stored again, and nothing else happens twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from celery.result import AsyncResult

from lowtide import RequestRejected, runtime
from lowtide.connect import connect
from lowtide.errors import LowtideError
from lowtide.ledger import BatchState
from lowtide.replay import Replayed, replay
from tests.plugins.redis import started_redis
from tests.plugins.stack import Stack, client_of, deployment, until

pytestmark = pytest.mark.slow
MODULE = "tests.replay.app"


@dataclass
class World:
    """One worker that keeps the provider's files, and the client's app."""

    stack: Stack
    client: Any

    @property
    def rt(self) -> runtime.Runtime:
        return runtime.of(self.client.app)

    @property
    def redis(self) -> Any:
        return connect(self.stack.redis_url)

    def batches_of(self, *results: AsyncResult) -> list[str]:
        """The batches that the calls were in, once all of these are delivered."""
        ids = {row.batch_id for each in results for row in self.rt.ledger.task(each.id)}
        until(lambda: all(self.state(name) == BatchState.DELIVERED for name in ids), "delivered")
        return sorted(ids)

    def state(self, batch_id: str) -> BatchState | None:
        batch = self.rt.ledger.batch(batch_id)
        return None if batch is None else batch.state

    def wipe(self, *results: AsyncResult) -> None:
        """The result backend loses what it holds of the calls."""
        for each in results:
            assert self.redis.delete(f"celery-task-meta-{each.id}") == 1

    def notes(self) -> list[str]:
        return sorted(item.decode() for item in self.redis.lrange(self.client.NOTES, 0, -1))

    def replay(self, *results: AsyncResult) -> list[Replayed]:
        return [replay(self.rt, batch_id) for batch_id in self.batches_of(*results)]

    def again(self, result: AsyncResult) -> AsyncResult:
        """The result as another process would read it."""
        return AsyncResult(result.id, app=self.client.app)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    redis = started_redis(tmp_path_factory.mktemp("redis"))
    folder = tmp_path_factory.mktemp("stack")
    with deployment(folder, redis.url) as stack, pytest.MonkeyPatch.context() as patch:
        stack.env["LOWTIDE_KEEP_FILES"] = "true"
        patch.setenv("LOWTIDE_KEEP_FILES", "true")
        client = client_of(MODULE)
        world = World(stack, client)
        stack.worker(MODULE)
        stack.ready(client.app)
        yield world
    redis.stop()


def counts(found: list[Replayed], name: str) -> int:
    return sum(getattr(each, name) for each in found)


def money(world: World) -> Any:
    return world.rt.ledger.totals().money


def test_lost_results_are_stored_again_and_nothing_follows_twice(world: World) -> None:
    tasks = world.client
    linked = tasks.plain.apply_async(("The tide is low.",), link=tasks.note.s())
    steps = tasks.steps.delay("The boat is red.")
    bad = tasks.bad.apply_async(("The buoy is green.",), link_error=tasks.noted_error.s())
    tail = chain(tasks.plain.s("The pier is long."), tasks.note.s())()
    wave = group(tasks.plain.s(f"Wave {n} rolls.") for n in range(3))
    many = chord(wave, tasks.note.s())()
    raises = tasks.raises.delay("The net is torn.")
    assert tail.get(timeout=60) == "The pier is long."
    assert many.get(timeout=60) == [f"Wave {n} rolls." for n in range(3)]
    calls = [linked, steps, bad, tail.parent, *many.parent.results, raises]
    for call in calls:
        call.get(timeout=60, propagate=False)
    before = [world.again(call).result for call in calls]
    until(lambda: len(world.notes()) == 4, "link, chain, chord and errback ran")
    world.batches_of(*calls)
    noted, paid, billed = world.notes(), money(world), world.stack.simulator.report()["requests"]
    world.wipe(*calls)

    found = world.replay(*calls)
    again = world.replay(*calls)

    assert counts(found, "stored") == len(calls)
    assert counts(found, "went_on") == 1  # the generator's first step
    assert all(each.complete for each in found)
    after = [world.again(call).result for call in calls]
    assert [repr(value) for value in after] == [repr(value) for value in before]
    assert isinstance(after[2], RequestRejected)
    assert after[2].details["task"] == "again.bad"
    assert isinstance(after[-1], ValueError)
    assert "no good" in world.again(raises).traceback
    assert (counts(again, "there"), counts(again, "stored")) == (len(calls), 0)
    tasks.note.delay("last").get(timeout=60)
    assert world.notes() == sorted([*noted, "'last'"])
    assert money(world) == paid
    assert world.stack.simulator.report()["requests"] == billed


def test_a_replay_of_a_task_that_was_retried_sends_no_retry(world: World) -> None:
    call = world.client.retried.delay("The gull is loud.")
    assert call.get(timeout=60) == "The gull is loud."
    batches = world.batches_of(call)
    world.wipe(call)

    found = world.replay(call)

    assert (counts(found, "stored"), counts(found, "went_on")) == (1, len(batches) - 1)
    assert world.again(call).result == "The gull is loud."
    assert world.rt.buffer.where([call.id]) == [None]


def test_a_retry_that_nobody_has_seen_yet_is_not_sent_again(world: World) -> None:
    """Retried with a countdown: its message is at the broker, the ledger knows the first try."""
    call = world.client.plain.delay("The crab is small.")
    assert call.get(timeout=60)
    world.batches_of(call)
    world.wipe(call)
    task = world.client.app.tasks["again.plain"]
    sent: list[Any] = []

    def retries(answer: Any) -> Any:
        raise task.retry(countdown=600)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(task), "postprocess", staticmethod(retries), raising=False)
        patch.setattr(type(task), "apply_async", lambda *_a, **_k: sent.append(1))
        (found,) = world.replay(call)

    assert (found.went_on, found.stored, sent) == (1, 0, [])
    assert world.again(call).state == "PENDING"


def test_all_who_shared_a_line_get_its_answer_again(world: World) -> None:
    calls = [world.client.shared.delay("The fog is thick.") for _ in range(3)]
    assert {call.get(timeout=60) for call in calls} == {"The fog is thick."}
    world.batches_of(*calls)
    world.wipe(*calls)

    found = world.replay(*calls)

    assert counts(found, "stored") == 3
    assert [world.again(call).result for call in calls] == ["The fog is thick."] * 3


def test_what_ignores_its_result_is_kept_nowhere(world: World) -> None:
    call = world.client.silent.delay("The rope is wet.")
    until(lambda: world.rt.ledger.task(call.id), "it is recorded")

    (found,) = world.replay(call)

    assert (found.unkept, found.stored, found.complete) == (1, 0, True)
    assert world.again(call).state == "PENDING"


def test_a_batch_that_has_not_ended_cannot_be_replayed(world: World) -> None:
    with pytest.raises(LowtideError, match="has no batch b-none"):
        replay(world.rt, "b-none")


def command(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lowtide.cli", "replay", *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=world.stack.folder,
        env={**os.environ, **world.stack.env},
    )


def test_the_command_tells_what_it_did(world: World) -> None:
    call = world.client.plain.delay("The lamp is lit.")
    assert call.get(timeout=60)
    (batch_id,) = world.batches_of(call)
    world.wipe(call)

    first = command(world, batch_id, "-A", MODULE)
    second = command(world, batch_id, "-A", MODULE, "--json")
    without = command(world, batch_id)

    assert (first.returncode, first.stdout) == (0, "1 results were lost, and are stored again.\n")
    told = json.loads(second.stdout)
    assert (second.returncode, told["there"], told["complete"]) == (0, 1, True)
    assert (without.returncode, without.stdout) == (1, "")
    assert without.stderr == (
        f"lowtide: This app does not have all tasks of {batch_id}: again.plain (1); "
        "name yours with -A.\n"
    )


def test_files_that_are_gone_are_said_in_one_line(world: World, tmp_path: Path) -> None:
    call = world.client.plain.delay("The sail is up.")
    assert call.get(timeout=60)
    (batch_id,) = world.batches_of(call)
    world.wipe(call)
    batch = world.rt.ledger.batch(batch_id)
    assert batch is not None
    world.rt.provider("default").delete_file(str(batch.output_file_id))
    world.stack.env["LOWTIDE_KEEP_FILES"] = "false"

    ran = command(world, batch_id, "-A", MODULE)

    world.stack.env["LOWTIDE_KEEP_FILES"] = "true"
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(
        f"lowtide: 1 results of {batch_id} are lost. The provider's files of batch {batch_id} "
        "cannot be had: they are deleted when a batch is delivered, unless LOWTIDE_KEEP_FILES is "
        "on, and LOWTIDE_KEEP_RESULTS did not keep the results."
    )
    assert len(ran.stderr.splitlines()) == 1
