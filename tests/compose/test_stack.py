"""The whole stack in containers: 5,000 calls from outside while workers die, scale and restart.

`make compose` runs it where a container engine and the base images are; elsewhere it is skipped.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest
from celery import Celery, chain
from celery.result import AsyncResult
from redis import Redis
from redis.exceptions import RedisError

from lowtide import task_ref
from lowtide.simulator.steering import Steering
from tests.brokers import quorum
from tests.compose.deployment import Compose, docker, program, until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(2400)]
CALLS = 5_000
WORKERS = 4


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    try:
        program()
    except FileNotFoundError as error:
        pytest.skip(f"{error}: install Docker or Podman with its compose plugin")
    made = Compose(f"lowtide-test-{os.getpid()}", tmp_path_factory.mktemp("deployment"))
    try:
        made.build()
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
    made = outside(stack.redis_url, stack.redis_url)
    yield made
    made.close()


def outside(broker: str, backend: str) -> Celery:
    """An app outside that has nothing but the wheel: no task's code, no provider's key."""
    made = Celery("outside", broker=broker, backend=backend, set_as_current=False)
    if broker.startswith("amqp"):
        made.conf.update(quorum.conf(broker))
    else:
        made.conf.broker_transport_options = {"visibility_timeout": 120}
    return made


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


def test_an_update_with_calls_under_way(stack: Compose, app: Celery) -> None:
    """As `docs/operations.md` has it; the image is the same, so that it is made anew by force."""
    before = sum(outcomes(stack).values())
    calls = send(app, range(before, before + 300))
    workers = set(stack.containers("worker"))

    stack.run("run", "--rm", "migrate")
    renew = ["up", "--detach", "--no-deps", "--no-build", "--force-recreate"]
    stack.run(*renew, "--scale", f"worker={WORKERS}", "worker", "web", "flower")

    each_has_its_answer(calls)
    paid_once(stack, before + 300)
    stack.healthy("worker", WORKERS)
    assert not workers & set(stack.containers("worker"))


def test_keys_are_rotated(stack: Compose) -> None:
    """Page, Flower, PostgreSQL and Valkey, each as `docs/operations.md` has it."""
    before = sum(outcomes(stack).values())
    old = {name: stack.secret(name) for name in ("lowtide_web_token", "valkey_password")}

    stack.write_secret("lowtide_web_token", "new-token")
    stack.write_secret("flower_basic_auth", "lowtide:new-password")
    stack.run("restart", "web", "flower")
    stack.healthy("web")
    with_old = Request(f"http://127.0.0.1:{stack.ports['web']}/metrics")
    with_old.add_header("authorization", f"Bearer {old['lowtide_web_token']}")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urlopen(with_old, timeout=30)
    assert "lowtide_up" in stack.ask("web", "/metrics")

    sql = "ALTER USER lowtide PASSWORD 'new-database-password'"
    stack.run("exec", "-T", "postgres", "psql", "-U", "lowtide", "-d", "lowtide", "-c", sql)
    stack.write_secret("postgres_password", "new-database-password")
    stack.run("stop", "worker", "web", "flower", "valkey")
    stack.write_secret("valkey_password", "new-valkey-password")
    stack.up("--no-build", "--scale", f"worker={WORKERS}")
    for service in ("valkey", "web"):
        stack.healthy(service)
    stack.healthy("worker", WORKERS)

    with pytest.raises(RedisError, match=r"(?i)password|authenticat"):
        Redis(port=stack.ports["valkey"], password=old["valkey_password"]).ping()
    again = outside(stack.redis_url, stack.redis_url)
    each_has_its_answer(send(again, range(before, before + 20)))
    again.close()


def test_from_redis_to_rabbitmq_with_calls_at_the_provider(stack: Compose) -> None:
    """As `docs/operations.md` has it: what waits at the provider goes on over the new broker."""
    before = sum(outcomes(stack).values())
    simulator = Steering(f"http://127.0.0.1:{stack.ports['simulator']}")
    simulator.turnaround(working="1h")
    app = outside(stack.redis_url, stack.redis_url)
    calls = send(app, range(before, before + 100))
    summarize = task_ref("tasks.summarize", app=app)
    tail = chain(summarize.s(text(1)), summarize.s())()
    until(lambda: outcomes(stack).get("RECORDED") == 101, "all are at the provider", 120)

    stack.run("--profile", "rabbitmq", "up", "--detach", "--no-build", "rabbitmq")
    stack.healthy("rabbitmq")
    until(lambda: not Redis.from_url(stack.redis_url).llen("celery"), "no call waits", 60)
    inside = "amqp://lowtide:{RABBITMQ_PASSWORD}@rabbitmq:5672//"
    stack.write_settings(LOWTIDE_BROKER_URL=inside)
    stack.up("--no-build", "--scale", f"worker={WORKERS}")
    stack.healthy("worker", WORKERS)
    stack.healthy("simulator")
    over = outside(stack.rabbitmq_url, stack.redis_url)
    calls |= send(over, range(before + 100, before + 200))
    simulator.turnaround(working=0)
    simulator.advance("2h")

    each_has_its_answer(calls)
    assert "number 1 " in tail.get(timeout=120)
    assert outcomes(stack) == {"DELIVERED": before + 202}
    words = ["rabbitmqctl", "--quiet", "list_queues", "name", "type"]
    queues = docker("exec", stack.containers("rabbitmq")[0], *words).split()
    assert dict(zip(queues[::2], queues[1::2], strict=True)).get("lowtide") == "quorum"
    over.close()
    app.close()


def test_prometheus_scrapes_the_page_and_reads_the_rules(stack: Compose) -> None:
    """With the passwords of `make secrets`, and the configuration as it is."""
    if not docker("images", "--quiet", "prom/prometheus:v3.5.0").strip():
        pytest.skip("the image prom/prometheus:v3.5.0 is not here")
    stack.run("--profile", "monitoring", "up", "--detach", "--no-build", "--no-deps", "prometheus")

    def asked(path: str) -> Any:
        script = (
            "import json, urllib.request as r; "
            f"print(r.urlopen('http://prometheus:9090/api/v1/{path}', timeout=10).read().decode())"
        )
        said = stack.run("exec", "-T", "web", "python", "-c", script)
        return json.loads(said)["data"]

    def scraped() -> bool:
        targets = asked("targets")["activeTargets"]
        return [target["health"] for target in targets] == ["up"]

    until(lambda: stack.containers("prometheus"), "Prometheus runs", 60)
    until(scraped, "the page is scraped", 120)
    found = asked("query?query=lowtide_up")["result"]
    assert {(row["metric"]["part"], row["value"][1]) for row in found} == {
        ("redis", "1"),
        ("ledger", "1"),
    }
    (group,) = asked("rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
    assert "LowtideDown" in {rule["name"] for rule in group["rules"]}
