from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from lowtide.connect import connect
from lowtide.embedded import EmbeddedRedis, find_server
from lowtide.errors import SettingsError
from tests.plugins.redis import started_redis
from tests.redis_side.support import until


def test_one_client_per_url_and_kind(redis_url: str, redis: Redis) -> None:
    assert connect(redis_url) is redis
    assert connect(redis_url, short=True) is not redis
    assert connect(redis_url, short=True) is connect(redis_url, short=True)
    assert redis.ping()


def test_many_threads_get_the_same_client(redis_server: EmbeddedRedis) -> None:
    url = f"{redis_server.url}?client_name=threads"
    start = threading.Barrier(16)

    def get(_: int) -> int:
        start.wait()
        return id(connect(url))

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(get, range(16)))) == 1


def test_more_threads_than_connections_wait_for_one(redis_url: str) -> None:
    def blocked(number: int) -> bool:
        return connect(redis_url).blpop([f"none{number}"], timeout=0.2) is None

    with ThreadPoolExecutor(100) as pool:
        assert all(pool.map(blocked, range(100)))


def test_a_forked_child_has_its_own_client(redis_url: str, redis: Redis) -> None:
    redis.set("{x}:side", "parent", ex=60)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            mine = connect(redis_url)
            answer = b"same" if mine is redis else mine.get("{x}:side") or b"nothing"
            os.write(write, answer if isinstance(answer, bytes) else answer.encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(read, 100) == b"parent"
    assert redis.get("{x}:side") == b"parent"
    os.close(read)
    os.close(write)


def test_it_works_under_gevent(redis_url: str) -> None:
    code = f"""
from gevent import monkey; monkey.patch_all()
import gevent, time
from lowtide.connect import connect
def wait(n): return connect({redis_url!r}).blpop([f"none{{n}}"], timeout=0.3)
start = time.monotonic()
jobs = [gevent.spawn(wait, n) for n in range(120)]
gevent.joinall(jobs, raise_error=True)
assert time.monotonic() - start < 5, "greenlets waited for each other"
print("done")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "done\n", ran.stderr


def test_a_restarted_server_is_found_again(tmp_path: Path) -> None:
    with started_redis(tmp_path) as server:
        client, short = connect(server.url), connect(server.url, short=True)
        client.set("{x}:a", "1")
        short.ping()
        port = server.port
        server.stop()
        server.start(tmp_path, port)

        assert short.get("{x}:a") == b"1"
        assert client.get("{x}:a") == b"1"


def test_a_command_waits_out_a_short_restart(tmp_path: Path) -> None:
    with started_redis(tmp_path) as server:
        client = connect(server.url)
        client.ping()
        port = server.port
        server.stop()
        again = threading.Timer(0.1, server.start, (tmp_path, port))
        again.start()

        assert client.ping()
        again.join()


def test_a_short_client_fails_soon(tmp_path: Path) -> None:
    with started_redis(tmp_path) as server:
        url = server.url
        started = time.monotonic()
        with pytest.raises(RedisError):
            connect(url, short=True).blpop(["none"], timeout=30)
        assert time.monotonic() - started < 5
    with pytest.raises(RedisConnectionError):
        connect(url, short=True).ping()


def test_a_unix_socket(redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    command = [str(find_server()), "--port", "0", "--unixsocket", str(path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tmp_path) as server:
        until(path.exists)
        assert connect(f"unix://{path}?db=2").ping()
        server.terminate()


@pytest.mark.parametrize("url", ["http://x", "localhost:6379", "valkey://x"])
def test_a_wrong_url_is_one_clear_line(url: str) -> None:
    with pytest.raises(SettingsError, match=r"LOWTIDE_REDIS_URL is not a Redis URL .*redis://host"):
        connect(url)


def test_options_of_the_url() -> None:
    client = connect("rediss://h/3?ssl_cert_reqs=CERT_REQUIRED&decode_responses=true")

    options = client.get_connection_kwargs()
    assert options["ssl_cert_reqs"] == "required"
    assert options["decode_responses"] is False
    assert options["db"] == 3
