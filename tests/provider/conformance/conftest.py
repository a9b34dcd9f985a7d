"""Every profile against the service that it is for, played by the simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lowtide.providers import RemoteBatch
from lowtide.providers.openai import OpenAIProvider
from lowtide.providers.profiles import PROFILES, Profile
from lowtide.request import CHAT, Call, Request, encode
from lowtide.results import Outcome, parse_line, read_lines
from lowtide.simulator import Steering
from tests.plugins.stack import Simulator, until

# Profile → the service that it is for; "compatible" has to do for the oddest one.
PAIRS = [
    ("openai", "openai"),
    ("azure", "azure"),
    ("groq", "groq"),
    ("together", "together"),
    ("doubleword", "doubleword"),
    ("compatible", "odd"),
]


@dataclass
class Service:
    """One service with a provider that knows it by its profile."""

    profile: Profile
    steering: Steering
    provider: OpenAIProvider
    folder: Path

    def batch(self, lines: dict[str, dict[str, Any]], batch_id: str, **faults: Any) -> RemoteBatch:
        """Creates a batch with a chat request for each custom_id."""
        for kind, params in faults.items():
            self.steering.add_fault(kind, **params)
        return self.provider.create(self.upload(lines, batch_id), endpoint=CHAT, batch_id=batch_id)

    def upload(self, lines: dict[str, dict[str, Any]], batch_id: str) -> str:
        path = self.folder / f"{batch_id}.jsonl"
        path.write_bytes(b"".join(line(each, **body) for each, body in lines.items()))
        return self.provider.upload(path, batch_id=batch_id)

    def ended(self, batch: RemoteBatch) -> RemoteBatch:
        """The batch at its end."""

        def over() -> RemoteBatch | None:
            self.steering.settle()
            now = self.provider.status(batch.id)
            return now if now.ended else None

        return until(over, f"batch {batch.id} ended")

    def outcomes(self, batch: RemoteBatch) -> dict[str, Outcome]:
        """What the files say of each request."""
        found: dict[str, Outcome] = {}
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is None:
                continue
            self.provider.download(file_id, self.folder / "result")
            for raw in read_lines(self.folder / "result"):
                parsed = parse_line(raw)
                assert parsed is not None, raw
                found[parsed.custom_id] = parsed.outcome
        return found


def line(custom_id: str, **body: Any) -> bytes:
    messages = [{"role": "user", "content": "The sea is wide."}]
    # Unchecked, because some are to be refused by the service.
    call = Call(CHAT, {"model": "gpt-5-mini", "messages": messages, **body})
    lane, data, tokens = encode(call, account="a")
    return Request(custom_id, custom_id, "t", lane, data, b"", tokens).line()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Simulator]]:
    started: dict[str, Simulator] = {}

    def start(service: str) -> Simulator:
        if service not in started:
            started[service] = Simulator(tmp_path_factory.mktemp(service), "--service", service)
        return started[service]

    yield start
    for server in started.values():
        server.stop()


@pytest.fixture(params=PAIRS, ids=[f"{profile}-at-{service}" for profile, service in PAIRS])
def service(
    request: pytest.FixtureRequest, servers: Callable[[str], Simulator], tmp_path: Path
) -> Iterator[Service]:
    name, played = request.param
    server = servers(played)
    profile = PROFILES[name]
    provider = OpenAIProvider("a", api_key="k", base_url=server.base_url, profile=profile)
    steering = Steering(server.root)
    yield Service(profile, steering, provider, tmp_path)
    steering.clear_faults()
    steering.turnaround(working=0, validating=0)
    steering.run()
    provider.close()
