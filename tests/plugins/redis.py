"""Fixtures: a real Valkey or Redis, a clean database for each test, and a check for leaked keys."""

from __future__ import annotations

import fnmatch
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from lowtide import keys
from lowtide.connect import connect
from lowtide.embedded import EmbeddedRedis
from lowtide.errors import LowtideError

_DATABASES = itertools.cycle(range(1, 16))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "leaves_keys(*patterns): Redis keys without TTL that the test leaves on purpose"
    )


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    server = started_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


def started_redis(folder: Path) -> EmbeddedRedis:
    """A server of a test's own; without a server program skips, in CI fails."""
    server = EmbeddedRedis()
    try:
        server.start(folder)
    except LowtideError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    return server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis, request: pytest.FixtureRequest) -> Iterator[str]:
    url = redis_server.url.removesuffix("/0") + f"/{next(_DATABASES)}"
    client = connect(url)
    client.flushdb()
    yield url
    allowed = [p for mark in request.node.iter_markers("leaves_keys") for p in mark.args]
    leaked = leaked_keys(client, allowed)
    assert not leaked, f"Redis keys left without TTL and outside any living buffer: {leaked}"


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return connect(redis_url)


def leaked_keys(client: Redis, allowed: list[str]) -> list[str]:
    """Keys of lowtide that are not permanent, not of a living buffer, not allowed, and stay."""
    found = sorted(key.decode() for key in client.scan_iter(match="{*}:*", count=1000))
    return [
        key
        for key in found
        if client.ttl(key) == -1
        and not _belongs(client, key)
        and not any(fnmatch.fnmatchcase(key, pattern) for pattern in allowed)
    ]


def _belongs(client: Redis, key: str) -> bool:
    """Whether `key` is permanent, or of a buffer that an index knows."""
    prefix, _, name = key.partition(":")
    kind, _, rest = name.partition(":")
    if name in keys.PERMANENT:
        return True
    ident = rest.removesuffix(":lines")
    if kind == "lane":
        return bool(client.sismember(f"{prefix}:lanes", ident))
    if kind == "batch" and rest.endswith(":lines"):
        return bool(client.hexists(f"{prefix}:sealed", ident))
    return False
