"""The main job on every pool: one worker of each, which does all that is asked of its pool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.calls import (
    a_revoked_call_ends_while_it_waits,
    every_kind_ends_as_it_should,
    what_fails_for_now_is_sent_again,
)
from tests.integration.conftest import MODULE
from tests.plugins.stack import Stack

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shop(stack: Stack, client: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The app's module as a client has it; its worker's pool is `request.param`."""
    stack.worker(MODULE, name=request.param, pool=request.param)
    stack.ready(client.app)
    yield client
    stack.stop_workers()


def on(*pools: str) -> pytest.MarkDecorator:
    """Runs a test on these pools. All start with the same ones: pytest then groups by them."""
    return pytest.mark.parametrize("shop", pools, indirect=True, scope="module")


@on("prefork", "solo", "threads", "gevent")
def test_every_kind_of_call_on_every_pool(stack: Stack, shop) -> None:
    every_kind_ends_as_it_should(stack, shop)


@on("prefork")
def test_retries_and_revokes(stack: Stack, shop) -> None:
    what_fails_for_now_is_sent_again(stack, shop)
    a_revoked_call_ends_while_it_waits(stack, shop)


@on("prefork", "solo")
def test_what_a_worker_has_loaded_is_not_looked_through_again(stack: Stack, shop) -> None:
    assert shop.set_aside.delay().get(timeout=60) > 10_000
