"""Fixtures: a deployment, and its app's module as a client has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.plugins.redis import started_redis
from tests.plugins.stack import Stack, client_of, deployment

MODULE = "tests.integration.app"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One deployment for all tests of a module."""
    redis = started_redis(tmp_path_factory.mktemp("redis"))
    with deployment(tmp_path_factory.mktemp("stack"), redis.url) as stack:
        yield stack
    redis.stop()


@pytest.fixture(scope="module")
def client(stack: Stack) -> Any:
    return client_of(MODULE)
