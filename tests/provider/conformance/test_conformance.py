"""What every service has to do for lowtide, whatever its oddities. One suite for all profiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lowtide.errors import (
    AccountPaused,
    BatchFailed,
    CreateAmbiguous,
    EndpointNotBatchable,
    SettingsError,
)
from lowtide.providers import RemoteBatch
from lowtide.providers.openai import OpenAIProvider
from lowtide.providers.profiles import PROFILES, profile_at, seconds
from lowtide.request import CHAT
from lowtide.results import Again, Answered, Rejected
from tests.plugins.stack import Simulator
from tests.provider.conformance.conftest import PAIRS, Service

TEN: dict[str, dict[str, Any]] = {f"r{n}": {} for n in range(10)}


def test_every_profile_is_under_test() -> None:
    assert {profile for profile, _ in PAIRS} == set(PROFILES)


def test_lines_go_up_and_an_answer_comes_down_for_each(service: Service) -> None:
    ended = service.ended(service.batch(TEN, "b1"))

    assert ended.status == "completed"
    assert ended.created_at is not None
    assert ended.ended_at is not None
    assert ended.ended_at >= ended.created_at
    assert (ended.counts.total, ended.counts.completed) == (10, 10)
    found = service.outcomes(ended)
    assert found.keys() == TEN.keys()
    assert all(isinstance(outcome, Answered) and outcome.usage for outcome in found.values())


def test_a_line_that_the_model_refuses_says_why(service: Service) -> None:
    ended = service.ended(service.batch({**TEN, "bad": {"temperature": 99}}, "b2"))

    refused = service.outcomes(ended)["bad"]
    assert isinstance(refused, Rejected)
    assert (refused.status, refused.param) == (400, "temperature")
    assert refused.message


def test_a_batch_whose_every_line_is_refused_has_no_output(service: Service) -> None:
    ended = service.ended(service.batch({"bad": {"temperature": 99}}, "b3"))

    assert ended.status == "completed"
    assert ended.output_file_id is None
    assert service.outcomes(ended).keys() == {"bad"}


def test_a_failed_validation_names_its_lines(service: Service) -> None:
    ended = service.ended(service.batch({"a": {}, "b": {"stream": True}}, "b4"))

    assert ended.status == "failed"
    assert [(error.line, error.code) for error in ended.errors] == [(2, "streaming_unsupported")]


def test_a_running_batch_counts_as_running_under_any_name(service: Service) -> None:
    service.steering.turnaround(working="1h")
    made = service.batch(TEN, "b5")
    service.steering.settle()

    now = service.provider.status(made.id)
    listed = service.provider.statuses([made.id, service.batch({"x": {}}, "b5x").id])

    assert not now.ended
    among = listed[made.id]
    assert isinstance(among, RemoteBatch)
    assert not among.ended
    assert now.expires_at is not None
    assert len(listed) == 2


def test_a_cancelled_batch_keeps_what_it_did(service: Service) -> None:
    service.steering.freeze()
    service.steering.turnaround(working="10h")
    made = service.batch(TEN, "b6")
    service.steering.settle()
    service.steering.advance("5h")

    service.provider.cancel(made.id)
    ended = service.ended(made)
    service.provider.cancel(made.id)

    assert ended.status == "cancelled"
    found = service.outcomes(ended)
    done = {each for each, outcome in found.items() if isinstance(outcome, Answered)}
    assert 0 < len(done) < 10
    assert all(isinstance(outcome, Again) for each, outcome in found.items() if each not in done)


def test_an_expired_batch_keeps_what_it_did(service: Service) -> None:
    service.steering.freeze()
    window = seconds(service.profile.windows[0])
    made = service.batch(TEN, "b7", expire={"share": 0.8, "count": 1})
    service.steering.advance(window + 60)

    ended = service.ended(made)

    assert ended.status == "expired"
    answered = [o for o in service.outcomes(ended).values() if isinstance(o, Answered)]
    assert len(answered) == 8


def test_a_creation_in_doubt_is_found_again(service: Service) -> None:
    since = service.steering.now() - 60
    service.ended(service.batch(TEN, "before"))
    file_id = service.upload(TEN, "doubt")
    service.steering.add_fault("error_after", count=1)

    with pytest.raises(CreateAmbiguous):
        service.provider.create(file_id, endpoint=CHAT, batch_id="doubt")
    found = service.provider.adopt("doubt", since=since, input_file_id=file_id)

    assert found is not None
    assert found.input_file_id == file_id
    again = service.upload(TEN, "doubt")
    assert service.provider.adopt("doubt", since=since, input_file_id=again) is None


def test_a_batch_without_its_file_fails_unpaid(service: Service) -> None:
    file_id = service.upload(TEN, "gone")
    service.provider.delete_file(file_id)
    service.provider.delete_file(file_id)

    ended = service.ended(service.provider.create(file_id, endpoint=CHAT, batch_id="gone"))

    assert ended.status == "failed"
    assert ended.counts.completed == 0


def test_every_window_of_the_profile_is_offered(service: Service) -> None:
    for window in service.profile.windows:
        provider = OpenAIProvider(
            "a", api_key="k", base_url=service.steering.base_url, profile=service.profile, window=window
        )  # fmt: skip
        made = provider.create(service.upload(TEN, "w"), endpoint=CHAT, batch_id="w")

        assert made.expires_at is not None
        assert made.created_at is not None
        assert made.expires_at - made.created_at == pytest.approx(seconds(window), abs=1)
        provider.close()
    with pytest.raises(SettingsError, match="has no completion window '9h'"):
        OpenAIProvider("a", api_key="k", profile=service.profile, window="9h")


def test_every_endpoint_of_the_profile_is_offered_and_no_other_is_sent(service: Service) -> None:
    for endpoint in service.profile.endpoints:
        service.profile.check(endpoint)
        service.provider.create(service.upload(TEN, "e"), endpoint=endpoint, batch_id="e")
    for endpoint in PROFILES["openai"].endpoints - service.profile.endpoints:
        with pytest.raises(EndpointNotBatchable, match=service.profile.name):
            service.profile.check(endpoint)
        with pytest.raises(BatchFailed):
            service.provider.create(service.upload(TEN, "e"), endpoint=endpoint, batch_id="e")


@pytest.mark.parametrize("service_name", ["azure", "groq", "together"])
def test_the_profile_of_openai_would_not_do(
    service_name: str, servers: Callable[[str], Simulator], tmp_path: Path
) -> None:
    """The services that are played differ from OpenAI in what their profiles say."""
    base = servers(service_name).base_url
    wrong = replace(PROFILES["openai"], file_expiry=3_600)
    provider = OpenAIProvider("a", api_key="k", base_url=base, profile=wrong)
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"{}\n")

    def send() -> None:
        file_id = provider.upload(path, batch_id="x")
        provider.create(file_id, endpoint="/v1/responses", batch_id="x")

    with pytest.raises((BatchFailed, AccountPaused)):
        send()
    provider.close()


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (None, "openai"),
        ("", "openai"),
        ("https://api.openai.com/v1", "openai"),
        ("https://mine.openai.azure.com/openai/v1/", "azure"),
        ("https://mine.services.ai.azure.com/openai/v1/", "azure"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.together.xyz/v1", "together"),
        ("https://api.together.ai/v1", "together"),
        ("https://api.doubleword.ai/v1", "doubleword"),
        ("http://127.0.0.1:8000/v1", "compatible"),
        ("https://notapi.openai.com.example.org/v1", "compatible"),
        ("nonsense", "compatible"),
    ],
)
def test_a_service_is_known_by_its_address(url: str | None, name: str) -> None:
    assert profile_at(url).name == name
