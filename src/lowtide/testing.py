"""Fixtures for the tests of code that uses a Batch API; no Celery needed.

In a ``conftest.py`` or a test module::

    pytest_plugins = ["lowtide.testing"]

    def test_my_code(batch_server, batch_clock):
        batch_server.turnaround(working="2h")
        job = my_code.submit(base_url=batch_server.base_url)
        batch_clock.advance("3h")                # two hours of waiting, in a millisecond
        assert my_code.collect(job) == ...
        assert batch_server.totals()["billed_twice"] == 0

Settings of a test's server go into a marker: ``@pytest.mark.batch_server(delay="1h", seed=7)``; its
keys are those of the simulator's TOML file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lowtide.simulator import SimulatorServer, SimulatorSettings, Steering
from lowtide.simulator.settings import from_mapping

if TYPE_CHECKING:
    from openai import OpenAI


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "batch_server(**settings): what the fixture batch_server is told"
    )


@pytest.fixture
def batch_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SimulatorServer]:
    """A Batch API server on a free port: ``base_url``, faults, clock, accounts of what was paid."""
    marker = request.node.get_closest_marker("batch_server")
    told: dict[str, Any] = {"state": tmp_path / "batch-server", **(marker.kwargs if marker else {})}
    with SimulatorServer(from_mapping(told, SimulatorSettings())) as server:
        yield server


@pytest.fixture
def batch_clock(batch_server: SimulatorServer) -> Steering:
    """The server's clock, standing still: ``advance("24h")`` alone moves it."""
    batch_server.freeze()
    return batch_server


@pytest.fixture
def batch_client(batch_server: SimulatorServer) -> Iterator[OpenAI]:
    """A plain OpenAI client of the server, without retries of its own."""
    from openai import OpenAI

    with OpenAI(base_url=batch_server.base_url, api_key="sk-test", max_retries=0) as client:
        yield client
