from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lowtide.providers.openai import OpenAIProvider
from tests.plugins.stack import Simulator
from tests.provider.server import ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    yield scripted
    scripted.close()


@pytest.fixture
def connect() -> Iterator[Callable[[str], OpenAIProvider]]:
    """Makes providers of a base URL, and closes them."""
    made: list[OpenAIProvider] = []

    def make(base_url: str) -> OpenAIProvider:
        made.append(OpenAIProvider("default", api_key="sk-test", base_url=base_url))
        return made[-1]

    yield make
    for provider in made:
        provider.close()


@pytest.fixture
def provider(server: ScriptedServer, connect: Callable[[str], OpenAIProvider]) -> OpenAIProvider:
    return connect(server.base_url)


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    started = Simulator(tmp_path_factory.mktemp("simulator"))
    yield started
    started.stop()


@pytest.fixture
def through(simulator: Simulator) -> Iterator[ScriptedServer]:
    """The simulator behind a server that can spoil its answers."""
    scripted = ScriptedServer(upstream=simulator.root)
    yield scripted
    scripted.close()
