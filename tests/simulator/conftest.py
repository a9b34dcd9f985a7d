"""The fixtures under test are those that users get."""

import pytest
from openai import OpenAI

from lowtide.testing import batch_client, batch_clock, batch_server, pytest_configure
from tests.simulator.support import Bench

__all__ = ["batch_client", "batch_clock", "batch_server", "pytest_configure"]


@pytest.fixture
def bench(batch_server, batch_client: OpenAI) -> Bench:
    return Bench(batch_server, batch_client)
