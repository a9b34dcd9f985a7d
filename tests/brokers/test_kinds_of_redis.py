"""Redis and Valkey as people have them: TLS, ACL, no CONFIG, apart from each other, Sentinel."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trustme
from celery import Celery
from redis import Redis
from redis.exceptions import RedisError

from lowtide import task_ref
from lowtide.connect import connect
from lowtide.embedded import find_server
from lowtide.errors import LowtideError, SettingsError
from lowtide.sentinel import parse
from lowtide.simulator.steering import Steering
from tests.plugins.stack import Stack, client_of, ended_by_pid, until

pytestmark = pytest.mark.slow
MODULE = "tests.integration.app"
Start = Callable[..., subprocess.Popen[bytes]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers with the options given, and ends them."""
    running = []
    try:
        program = find_server()
    except LowtideError as error:
        pytest.skip(str(error))

    def begin(name: str, *words: str, file: str = "") -> subprocess.Popen[bytes]:
        folder = tmp_path / name
        folder.mkdir()
        conf = folder / "server.conf"
        conf.write_text(f'dir {folder}\nbind 127.0.0.1\nsave ""\n{file}')
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [str(program), str(conf), *words], stdout=log, stderr=log, start_new_session=True
            )
        running.append(process)
        return process

    yield begin
    for process in running:
        ended_by_pid(process, signal.SIGKILL)


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


def shop_at(stack: Stack, patch: pytest.MonkeyPatch, **env: str):
    """The main job's app with these addresses, and a worker of it that is ready."""
    for name, value in env.items():
        patch.setenv(name, value)
    stack.env.update(env)
    shop = client_of(MODULE)
    stack.worker(MODULE)
    stack.ready(shop.app)
    return shop


def the_main_job(stack: Stack, shop) -> None:
    calls = {n: shop.summarize.delay(f"Parcel number {n} is at sea.") for n in range(200)}

    assert {n: call.get(timeout=60) for n, call in calls.items()} == {
        n: f"Parcel number {n} is at sea." for n in calls
    }
    billed = Counter(row["billed"] for row in stack.simulator.report()["requests"])
    assert billed == {1: 200}


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, str]:
    """Files of a certificate for this machine and of the authority that signed it."""
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1", "localhost")
    files = {name: str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem")}
    authority.cert_pem.write_to_path(files["ca.pem"])
    made.cert_chain_pems[0].write_to_path(files["cert.pem"])
    made.private_key_pem.write_to_path(files["key.pem"])
    return files


@pytest.fixture
def tls(certificates: dict[str, str]) -> Iterator[Callable[[int], int]]:
    """Puts TLS in front of a port, as stunnel does, for server programs built without it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates["cert.pem"], certificates["key.pem"])
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
        target.close()

    def in_front_of(port: int) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(carry(reader, inner[1]), carry(inner[0], writer))

        starting = asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        server = asyncio.run_coroutine_threadsafe(starting, loop).result(10)
        return int(server.sockets[0].getsockname()[1])

    yield in_front_of
    loop.call_soon_threadsafe(loop.stop)


def test_over_tls_with_a_checked_certificate(
    stack: Stack,
    start: Start,
    tls: Callable[[int], int],
    certificates: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = free_port()
    start("plain", "--port", str(plain))
    until(lambda: answers(Redis(port=plain)), "the server answers")
    port = tls(plain)
    authority = f"ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={certificates['ca.pem']}"
    url = f"rediss://127.0.0.1:{port}/0"

    shop = shop_at(stack, monkeypatch, LOWTIDE_REDIS_URL=f"{url}?{authority}")

    the_main_job(stack, shop)
    assert not answers(Redis.from_url(url, ssl_cert_reqs="required"))


def test_with_a_user_who_may_no_more_than_is_needed_and_no_config(
    stack: Stack, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As managed services are: no CONFIG, no ACL, no SHUTDOWN; `docs/operations.md` has the rule."""
    port = free_port()
    rule = "user app on >sesame ~* &* +@all -@admin -@dangerous +info +keys +client\nuser default off\n"
    start("acl", "--port", str(port), file=rule)
    url = f"redis://app:sesame@127.0.0.1:{port}/0"
    until(lambda: answers(connect(url)), "the server answers")
    with pytest.raises(RedisError, match="permissions"):
        connect(url).config_get("*")

    shop = shop_at(stack, monkeypatch, LOWTIDE_REDIS_URL=url)

    the_main_job(stack, shop)


def test_buffers_broker_and_results_apart(
    stack: Stack, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = {}
    for name in ("buffers", "broker", "results"):
        port = free_port()
        start(name, "--port", str(port))
        urls[name] = f"redis://127.0.0.1:{port}/0"
        until(partial(answers, connect(urls[name])), f"{name} answers")
    env = {
        "LOWTIDE_REDIS_URL": urls["buffers"],
        "LOWTIDE_BROKER_URL": urls["broker"],
        "LOWTIDE_RESULT_BACKEND": urls["results"],
        "OPENAI_API_KEY": "simulator",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    stack.env.update(env)
    stack.worker("worker.app")
    app = client_of("worker.app", "config.celeryconfig").app
    stack.ready(app)

    calls = [task_ref("tasks.summarize", app=app).delay(f"Gull {n} flies.") for n in range(50)]
    assert all(f"Gull {n} flies" in call.get(timeout=60) for n, call in enumerate(calls))
    kinds = {
        name: {key.split(b":")[0] for key in connect(url).scan_iter()} for name, url in urls.items()
    }
    assert kinds["buffers"] == {b"{lowtide}"}
    assert kinds["results"] == {
        b"celery-task-meta-" + call.id.split(":")[0].encode() for call in calls
    }
    assert not {b"{lowtide}"} & kinds["broker"]


@dataclass
class Watched:
    """A master with a replica, and a sentinel that watches them.

    Attributes:
        url: Where the master is, whoever that is.
        master: Port of the first master.
        replica: Port of the other one.
        watcher: The sentinel.
    """

    url: str
    master: int
    replica: int
    watcher: Redis

    def fail_over(self) -> None:
        """The replica becomes the master, and the old one ends."""
        until(lambda: _goes_over(self.watcher), "the failover begins")
        until(lambda: _port_of(self.watcher) == self.replica, "the replica is the master")
        Redis(port=self.master, password="sesame").shutdown(nosave=True)


@pytest.fixture
def watched(start: Start) -> Watched:
    master, replica, port = (free_port() for _ in range(3))
    start("master", "--port", str(master), "--requirepass", "sesame", "--masterauth", "sesame")
    follow = ["--replicaof", f"127.0.0.1 {master}", "--masterauth", "sesame"]
    start("replica", "--port", str(replica), "--requirepass", "sesame", *follow)
    conf = (
        f"port {port}\nsentinel monitor tide 127.0.0.1 {master} 1\n"
        "sentinel auth-pass tide sesame\nsentinel down-after-milliseconds tide 500\n"
        "sentinel failover-timeout tide 3000\n"
    )
    start("sentinel", "--sentinel", file=conf)
    url = f"redis+sentinel://:sesame@127.0.0.1:1,127.0.0.1:{port}/tide/0"
    client = connect(url)
    until(lambda: answers(client), "the master is found")
    until(lambda: client.info("replication")["connected_slaves"] == 1, "the replica follows")
    watcher = Redis(port=port)
    until(lambda: watcher.execute_command("SENTINEL", "REPLICAS", "tide"), "the replica is known")
    return Watched(url, master, replica, watcher)


def test_the_master_behind_sentinel_and_its_successor(watched: Watched) -> None:
    client = connect(watched.url)
    client.set("kept", "yes")
    assert client.wait(1, 5_000) == 1

    watched.fail_over()

    until(lambda: answers(client) and client.get("kept") == b"yes", "the successor is found")
    until(lambda: _written(client), "the successor takes writes")


def test_workers_behind_sentinel_go_on_with_its_successor(
    stack: Stack, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buffers, broker and results behind one sentinel; calls at the provider, then new ones."""
    env = {"LOWTIDE_REDIS_URL": watched.url, "OPENAI_API_KEY": "simulator"}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    stack.env.update(env)
    app = client_of("worker.app", "config.celeryconfig").app
    stack.worker("worker.app", name="w1")
    stack.worker("worker.app", name="w2")
    stack.ready(app, 2)
    simulator = Steering(stack.simulator.root)
    simulator.turnaround(working="1h")
    summarize = task_ref("tasks.summarize", app=app)
    calls = [summarize.delay(f"Gull {n} flies.") for n in range(100)]
    until(lambda: {call.state for call in calls} == {"SUBMITTED"}, "all are at the provider")
    assert connect(watched.url).wait(1, 5_000) == 1

    watched.fail_over()
    client = connect(watched.url)
    until(lambda: answers(client) and _written(client), "the successor takes writes")
    until(lambda: _answering(app) == 2, "both workers are at the successor")
    calls += [summarize.delay(f"Gull {n} flies.") for n in range(100, 150)]
    simulator.turnaround(working=0)
    simulator.advance("2h")

    wrong = {n for n, call in enumerate(calls) if f"Gull {n} flies" not in call.get(timeout=120)}
    assert wrong == set()
    billed = Counter(row["billed"] for row in stack.simulator.report()["requests"])
    assert billed == {1: 150}


def _answering(app: Celery) -> int:
    """How many workers answer; this process's own connections have to find the successor too."""
    try:
        return len(app.control.ping(timeout=1))
    except (RedisError, OSError):
        return 0


def _goes_over(watcher: Redis) -> bool:
    try:
        return bool(watcher.execute_command("SENTINEL", "FAILOVER", "tide"))
    except RedisError:
        return False


def _port_of(watcher: Redis) -> int:
    found = watcher.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "tide")
    return int(found[1])


def _written(client: Redis) -> bool:
    try:
        return bool(client.set("after", "too"))
    except RedisError:
        return False


def test_celerys_own_words_for_it() -> None:
    place = parse("redis+sentinel://user:p%40ss@one,two:27000/tide/3?sentinel_password=x")

    assert place.sentinels == (("one", 26379), ("two", 27000))
    assert (place.username, place.password, place.database) == ("user", "p@ss", 3)
    options = {"master_name": "tide", "sentinel_kwargs": {"password": "x"}}
    assert place.celery()[1] == options


@pytest.mark.parametrize("url", ["redis+sentinel://one:26379", "redis+sentinel://one:x/tide"])
def test_a_url_that_names_too_little(url: str) -> None:
    with pytest.raises(SettingsError, match="mymaster"):
        connect(url)
