"""What a profile says binds: where buffers are sealed, calls accepted, and batches looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from lowtide import accept, runtime
from lowtide.calls import chat, embed, to_call
from lowtide.errors import EndpointNotBatchable, RequestTooLarge, SettingsError
from lowtide.lane import Lane
from lowtide.providers import make_provider
from lowtide.providers.openai import OpenAIProvider
from lowtide.settings import Settings, load
from lowtide.task import BatchTask

CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def settings(**accounts: dict[str, Any]) -> Settings:
    return load({"accounts": accounts, "max_requests": 100_000, "max_bytes": 200_000_000})


def lane(account: str) -> Lane:
    return Lane(account, CHAT, "m")


@pytest.mark.parametrize(
    ("account", "requests", "size"),
    [
        ({}, 50_000, 200_000_000),
        ({"profile": "azure"}, 100_000, 200_000_000),
        ({"base_url": "https://api.groq.com/openai/v1"}, 50_000, 100_000_000),
        (
            {"base_url": "https://gateway.example.org/v1", "profile": "together"},
            50_000,
            100_000_000,
        ),
    ],
)
def test_the_smaller_of_setting_and_profile_seals_a_buffer(
    account: dict[str, Any], requests: int, size: int
) -> None:
    found = settings(a=account).thresholds(lane("a"))

    assert (found.max_requests, found.max_bytes) == (requests, size)


def test_a_setting_below_the_profile_stays() -> None:
    chosen = load({"accounts": {"a": {"profile": "groq"}}, "lanes": {"a": {"max_requests": 7}}})

    assert chosen.thresholds(lane("a")).max_requests == 7


def test_the_address_in_the_environment_tells_the_default_accounts_profile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert settings().profile("default").name == "openai"
    monkeypatch.setenv("OPENAI_BASE_URL", "https://mine.openai.azure.com/openai/v1/")
    assert settings().profile("default").name == "azure"
    monkeypatch.delenv("OPENAI_BASE_URL")
    (tmp_path / ".env").write_text("OPENAI_BASE_URL=https://api.groq.com/openai/v1\n")
    assert settings().profile("default").name == "groq"


def test_an_account_that_is_gone_has_a_profile_for_what_it_left() -> None:
    assert settings().profile("gone").name == "compatible"


def test_an_unknown_profile_is_an_error_that_lists_the_others() -> None:
    with pytest.raises(SettingsError, match=r"LOWTIDE_ACCOUNTS.*'azur'.*openai, azure"):
        settings(a={"profile": "azur"})


def test_batches_are_looked_at_as_rarely_as_the_service_wants() -> None:
    chosen = settings(a={"profile": "azure"}, b={"profile": "groq"})

    assert chosen.shortest_poll("a") == 60.0
    assert chosen.shortest_poll("b") == chosen.poll_min


def test_the_window_of_an_account_is_asked_for_and_waited_for() -> None:
    chosen = settings(a={"profile": "doubleword", "window": "1h"}, b={"profile": "groq"})
    provider = make_provider("a", chosen)

    assert isinstance(provider, OpenAIProvider)
    assert provider._window == "1h"
    assert provider.profile.name == "doubleword"
    assert (chosen.window("a"), chosen.window("b")) == (3_600.0, 86_400.0)


def test_a_window_that_the_service_lacks_is_an_error() -> None:
    with pytest.raises(SettingsError, match="openai has no completion window '1h'"):
        make_provider("a", settings(a={"profile": "openai", "window": "1h"}))


@pytest.fixture
def task() -> BatchTask:
    app = Celery("profiles", broker="memory://", set_as_current=False)
    app.conf.lowtide = {
        "accounts": {"fast": {"profile": "groq"}},
        "max_bytes": 200_000_000,
    }

    @app.task(base=BatchTask, model="m", account="fast", name="profiles.ask", shared=False)
    def ask(text: str) -> str:
        return text

    return ask


def test_calls_that_the_service_has_no_batches_for_are_refused(task: BatchTask) -> None:
    assert accept.encoded(task, to_call(chat("x", model="m")))[0] == Lane("fast", CHAT, "m")
    with pytest.raises(EndpointNotBatchable, match="no batch form at groq"):
        accept.encoded(task, to_call(embed("x", model="m")))


def test_calls_larger_than_the_services_files_are_refused(task: BatchTask) -> None:
    with pytest.raises(RequestTooLarge, match="100,000,000 bytes"):
        accept.encoded(task, to_call(chat("x" * 100_000_000, model="m")))


def test_calls_of_an_account_that_nobody_set_are_refused(task: BatchTask) -> None:
    task.account = "slow"
    with pytest.raises(SettingsError, match="'slow'"):
        accept.encoded(task, to_call(chat("x", model="m")))


def test_the_runtime_of_a_task_hands_out_the_profile(task: BatchTask) -> None:
    assert runtime.of(task.app).settings.profile("fast").name == "groq"
