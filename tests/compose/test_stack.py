"""The whole stack in containers: 5,000 calls from outside while workers die, scale and restart.

`make compose` runs it where a container engine and the base images are; elsewhere it is skipped.
"""

from __future__ import annotations

import os
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator
from urllib.request import urlopen

import pytest
from celery import Celery
from celery.result import AsyncResult
from redis import Redis
from redis.exceptions import RedisError

from lowtide import task_ref
from lowtide.simulator.steering import Steering
from tests.compose.deployment import Compose, docker, program, until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(2400)]
CALLS = 5_000
WORKERS = 4


@pytest.fixture(scope="module")
def stack() -> Iterator[Compose]:
    try:
        program()
    except FileNotFoundError as error:
        pytest.skip(f"{error}; CONTRIBUTING.md says how to get one")
    made = Compose(f"lowtide-test-{os.getpid()}")
    try:
        made.run("build", "worker")
        made.up("--no-build", "--scale", f"worker={WORKERS}")
        for service in ("valkey", "postgres", "web", "flower", "simulator"):
            made.healthy(service)
        made.healthy("worker", WORKERS)
        yield made
    except BaseException:
        print(made.run("--profile", "simulator", "logs", "--tail", "60").decode()[-20_000:])
        raise
    finally:
        made.remove()


@pytest.fixture
def app(stack: Compose) -> Iterator[Celery]:
    """An app outside that has nothing but the wheel: no task's code, no provider's key."""
    made = Celery("outside", broker=stack.redis_url, backend=stack.redis_url, set_as_current=False)
    made.conf.broker_transport_options = {"visibility_timeout": 120}
    yield made
    made.close()


def text(number: int) -> str:
    return f"Parcel number {number} is at sea."


def send(app: Celery, numbers: range) -> dict[int, AsyncResult]:
    summarize = task_ref("tasks.summarize", app=app)
    return {number: summarize.delay(text(number)) for number in numbers}


def each_has_its_answer(calls: dict[int, AsyncResult]) -> None:
    wrong = {
        number: answer
        for number, call in calls.items()
        if f"number {number} " not in (answer := str(call.get(timeout=600)))
    }
    assert wrong == {}


def paid_once(stack: Compose, count: int) -> None:
    requests = stack.ask("simulator", "/simulator/report")["requests"]
    assert len(requests) == count
    assert Counter(row["billed"] for row in requests) == {1: count}


def outcomes(stack: Compose) -> dict[str, int]:
    """The ledger's requests by state."""
    sql = "SELECT state, count(*) FROM lowtide_requests GROUP BY state"
    words = ["psql", "-U", "lowtide", "-d", "lowtide", "-At", "-F", " ", "-c", sql]
    said = stack.run("exec", "-T", "postgres", *words).decode()
    return {state: int(count) for state, count in (line.split() for line in said.splitlines())}


def restart_one_by_one(stack: Compose) -> None:
    """Restarts worker after worker, as an update does; none of them has to be killed."""
    for container in stack.containers("worker"):
        docker("stop", "--time", "60", container)
        code = docker("inspect", "--format", "{{.State.ExitCode}}", container).strip()
        assert code == "0", f"a worker was killed when its minute was over: exit code {code}"
        docker("start", container)
        stack.healthy("worker", WORKERS)


def test_nothing_runs_as_root_and_nothing_is_open_without_a_password(stack: Compose) -> None:
    users = {
        docker("exec", stack.containers(service)[0], "id", "-u").strip()
        for service in ("worker", "web", "flower", "simulator")
    }
    published = docker("ps", "--filter", f"name={stack.project}", "--format", "{{.Ports}}")
    with pytest.raises(urllib.error.HTTPError) as flower:
        stack.ask("flower", "/api/tasks")
    with pytest.raises(urllib.error.HTTPError) as metrics:
        urlopen(f"http://127.0.0.1:{stack.ports['web']}/metrics", timeout=30)
    with pytest.raises(RedisError, match=r"(?i)authenticat"):
        Redis(port=stack.ports["valkey"]).ping()

    assert users == {"10001"}
    assert "0.0.0.0:" not in published
    assert "[::]:" not in published
    assert (flower.value.code, metrics.value.code) == (401, 401)
    assert "lowtide_up" in stack.ask("web", "/metrics")


def test_five_thousand_calls_while_workers_die_scale_and_restart(
    stack: Compose, app: Celery
) -> None:
    began = time.monotonic()
    calls = send(app, range(CALLS // 2))
    first, second = stack.containers("worker")[:2]
    docker("kill", first)
    stack.up("--no-build", "--no-recreate", "--scale", f"worker={WORKERS - 2}")
    calls |= send(app, range(CALLS // 2, CALLS))
    stack.up("--no-build", "--no-recreate", "--scale", f"worker={WORKERS}")
    stack.healthy("worker", WORKERS)
    restart_one_by_one(stack)

    each_has_its_answer(calls)
    paid_once(stack, CALLS)
    assert outcomes(stack) == {"DELIVERED": CALLS}
    print(f"{CALLS} calls, {second[:4]} among the stopped, in {time.monotonic() - began:.0f} s")


def test_a_backup_of_both_stores_brings_back_what_was_on_its_way(
    stack: Compose, app: Celery
) -> None:
    before = sum(outcomes(stack).values())
    simulator = Steering(f"http://127.0.0.1:{stack.ports['simulator']}")
    simulator.turnaround(working="1h")
    calls = send(app, range(before, before + 500))
    until(lambda: outcomes(stack).get("RECORDED") == 500, "all are at the provider", 120)
    app.close()

    stack.run("stop", "worker", "web", "flower", "valkey")
    dump = stack.run("exec", "-T", "postgres", "pg_dump", "-U", "lowtide", "-Fc", "lowtide")
    files = stack.volume("valkey", "-C", "/data", "-c", ".")
    stack.run("rm", "--force", "--stop", "valkey", "postgres", "migrate")
    docker("volume", "rm", f"{stack.project}_valkey", f"{stack.project}_postgres")
    stack.run("up", "--no-build", "--no-start", "valkey", "postgres")
    stack.volume("valkey", "-C", "/data", "-x", stdin=files)
    stack.up("--no-build", "postgres")
    stack.healthy("postgres")
    restore = ["pg_restore", "-U", "lowtide", "-d", "lowtide", "--exit-on-error"]
    stack.run("exec", "-T", "postgres", *restore, stdin=dump)
    stack.up("--no-build", "--scale", f"worker={WORKERS}")
    stack.healthy("worker", WORKERS)
    simulator.turnaround(working=0)
    simulator.advance("2h")

    each_has_its_answer(calls)
    paid_once(stack, before + 500)
    assert outcomes(stack) == {"DELIVERED": before + 500}
