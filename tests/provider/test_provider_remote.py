"""A batch object, however loosely a service keeps to the form."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.errors import AccountPaused, ProviderError, ProviderUnavailable, SettingsError
from lowtide.providers import BatchError, Counts, RemoteBatch, make_provider
from lowtide.providers.openai import OpenAIProvider
from lowtide.providers.remote import remote_batch, timestamp
from lowtide.settings import Account, Settings
from lowtide.tokens import Usage
from tests.provider.server import DROP, Reply, ScriptedServer

FULL = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "errors": {
        "object": "list",
        "data": [{"code": "invalid_url", "line": 3, "message": "Bad.", "param": "url"}],
    },
    "input_file_id": "file-in",
    "output_file_id": "file-out",
    "error_file_id": "",
    "completion_window": "24h",
    "status": "failed",
    "created_at": 1_700_000_000,
    "failed_at": 1_700_000_060,
    "expires_at": 1_700_086_400,
    "request_counts": {"total": 5, "completed": 3, "failed": 2},
    "usage": {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 17,
    },
    "metadata": {"lowtide_batch": "b1", "n": 5},
    "model": "gpt-5-mini-2025-08-07",
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def test_every_field_of_a_full_batch_is_read():
    batch = remote_batch(FULL)

    assert batch is not None
    assert batch.ended
    assert batch.input_file_id == "file-in"
    assert batch.output_file_id == "file-out"
    assert batch.error_file_id is None
    assert batch.ended_at == 1_700_000_060.0
    assert batch.expires_at == 1_700_086_400.0
    assert batch.counts == Counts(5, 3, 2)
    assert batch.errors == (BatchError("invalid_url", 3, "Bad.", "url"),)
    assert batch.usage == Usage(10, 4, 7, 2)
    assert batch.metadata == {"lowtide_batch": "b1", "n": "5"}
    assert batch.model == "gpt-5-mini-2025-08-07"


def test_a_batch_that_omits_all_it_may_is_read():
    batch = remote_batch({"id": "batch_1", "status": "in_progress"})

    assert batch is not None
    assert not batch.ended
    assert (batch.counts, batch.errors, batch.usage, batch.metadata) == (Counts(), (), None, {})


@pytest.mark.parametrize(
    ("told", "status", "ended"),
    [
        ("completed", "completed", True),
        ("COMPLETED", "completed", True),
        ("canceled", "cancelled", True),
        ("expired", "expired", True),
        ("finalizing", "finalizing", False),
        ("cancelling", "cancelling", False),
        ("scheduling", "scheduling", False),
        (None, "unknown", False),
        (7, "unknown", False),
    ],
)
def test_a_status_that_is_not_known_counts_as_running(told: Any, status: str, ended: bool):
    batch = remote_batch({"id": "batch_1", "status": told})

    assert batch is not None
    assert (batch.status, batch.ended) == (status, ended)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_700_000_000, 1_700_000_000.0),
        ("1700000000", 1_700_000_000.0),
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000.0),
        ("2023-11-14T22:13:20", 1_700_000_000.0),
        ("2023-11-14 22:13:20.500", 1_700_000_000.5),
        (None, None),
        ("", None),
        (0, None),
        (True, None),
        ("soon", None),
        (float("nan"), None),
        ("inf", None),
    ],
)
def test_times_come_in_many_forms(value: Any, seconds: float | None):
    assert timestamp(value) == seconds


@given(st.dictionaries(st.sampled_from(sorted(FULL)), JSON), JSON)
def test_no_batch_object_is_too_odd_to_read(fields: dict[str, Any], anything: Any):
    batch = remote_batch({**FULL, **fields, "id": "batch_1"})

    assert batch is not None
    assert batch.id == "batch_1"
    assert batch.output_file_id != ""
    assert remote_batch(anything) is None or isinstance(anything, dict)


def test_an_unknown_batch_is_an_error_of_its_own(server: ScriptedServer, provider: OpenAIProvider):
    server.on("GET /v1/batches/batch_1", Reply(404, {"error": {"message": "No batch found."}}))

    with pytest.raises(ProviderError) as raised:
        provider.status("batch_1")

    assert not isinstance(raised.value, ProviderUnavailable)
    assert raised.value.code == "not_found"


FAILED_HALF = rb"""{"id": "batch_1", "status": "failed", "errors":
    {"data": [{"code": "invalid_value", "line": 1, "message": "Invalid value: 'the sea \ud83d'"}]}}"""


def test_half_an_emoji_in_its_words_does_not_hide_a_batchs_end(
    server: ScriptedServer, provider: OpenAIProvider
):
    server.on("GET /v1/batches/batch_1", Reply(200, FAILED_HALF))

    found = provider.status("batch_1")

    assert found.ended
    assert [error.message for error in found.errors] == ["Invalid value: 'the sea ?'"]


def test_half_an_emoji_in_one_batchs_words_hides_no_other_on_the_list(
    server: ScriptedServer, provider: OpenAIProvider
):
    ours = rb"""{"id": "batch_2", "status": "completed", "metadata": {"lowtide_batch": "b1"}}"""
    page = b'{"data": [%s, %s], "has_more": false}' % (FAILED_HALF, ours)
    server.on("GET /v1/batches", Reply(200, page))

    found = provider.adopt("b1", since=0.0)

    assert found is not None
    assert found.id == "batch_2"


def test_a_paid_answer_with_half_an_emoji_is_kept(server: ScriptedServer, provider: OpenAIProvider):
    server.on("POST /v1/chat/completions", Reply(200, rb'{"choices": ["\ud83d"]}'))

    assert provider.run("/v1/chat/completions", {"model": "m"}) == {"choices": ["?"]}


def one(number: int) -> dict[str, Any]:
    return {"id": f"batch_{number}", "status": "in_progress", "created_at": number}


def test_one_status_is_read_by_itself(server: ScriptedServer, provider: OpenAIProvider):
    server.on("GET /v1/batches/batch_1", Reply(200, one(1)))

    assert set(provider.statuses(["batch_1"])) == {"batch_1"}
    assert [call.path for call in server.seen] == ["/v1/batches/batch_1"]


def test_many_statuses_are_read_with_one_list_call(
    server: ScriptedServer, provider: OpenAIProvider
):
    server.on(
        "GET /v1/batches", Reply(200, {"data": [one(n) for n in range(9, 0, -1)], "has_more": True})
    )

    found = provider.statuses(["batch_3", "batch_7", "batch_9"])

    assert set(found) == {"batch_3", "batch_7", "batch_9"}
    assert len(server.seen) == 1


def test_listing_stops_when_asking_for_each_is_cheaper(
    server: ScriptedServer, provider: OpenAIProvider
):
    page = {"data": [one(9)], "has_more": True, "last_id": "batch_9"}
    server.on("GET /v1/batches", Reply(200, page))
    server.on("GET /v1/batches/batch_1", Reply(200, one(1)))
    server.on("GET /v1/batches/batch_2", Reply(404, {"error": {"message": "gone"}}))

    found = provider.statuses(["batch_9", "batch_1", "batch_2"])

    assert set(found) == {"batch_9", "batch_1"}
    assert len(server.seen) <= 5


@pytest.mark.parametrize("listing", [Reply(404, b""), Reply(500, b""), Reply(200, {"data": 5})])
def test_a_service_without_a_usable_list_is_asked_for_each(
    server: ScriptedServer, provider: OpenAIProvider, listing: Reply
):
    server.on("GET /v1/batches", listing)
    for number in (1, 2):
        server.on(f"GET /v1/batches/batch_{number}", Reply(200, one(number)))

    assert set(provider.statuses(["batch_1", "batch_2"])) == {"batch_1", "batch_2"}


def test_a_status_call_that_fails_is_an_error_and_no_missing_batch(
    server: ScriptedServer, provider: OpenAIProvider
):
    server.on("GET /v1/batches", Reply(500, b""))
    server.on("GET /v1/batches/batch_1", Reply(500, b""))

    server.on("GET /v1/batches/batch_2", Reply(200, one(2)))

    found = provider.statuses(["batch_1", "batch_2"])

    assert isinstance(found["batch_1"], ProviderUnavailable)
    assert isinstance(found["batch_2"], RemoteBatch)


@pytest.mark.parametrize(
    ("reply", "error"),
    [(DROP, ProviderUnavailable), (Reply(429), ProviderUnavailable), (Reply(401), AccountPaused)],
)
def test_no_more_statuses_are_asked_for_when_the_service_or_account_fails(
    server: ScriptedServer, provider: OpenAIProvider, reply: Reply, error: type[ProviderError]
):
    server.on("GET /v1/batches", Reply(404))
    server.on("GET /v1/batches/batch_1", reply)

    with pytest.raises(error):
        provider.statuses(["batch_1", "batch_2"])
    assert server.calls("GET /v1/batches/batch_2") == []


def settings(**accounts: Account) -> Settings:
    return Settings.model_construct(accounts=accounts)


def test_an_account_is_made_from_its_settings(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EU_KEY", "sk-eu")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server.on("GET /v1/batches/batch_1", Reply(200, one(1)))
    account = Account(
        base_url=server.base_url, api_key_env="EU_KEY", organization="org-1", project="proj-1"
    )

    make_provider("eu", settings(eu=account)).status("batch_1")

    [call] = server.seen
    headers = {name.lower(): value for name, value in call.headers.items()}
    assert headers["authorization"] == "Bearer sk-eu"
    assert headers["openai-organization"] == "org-1"
    assert headers["openai-project"] == "proj-1"


def test_the_default_account_reads_the_environment_or_dotenv(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-from-file\n")
    server.on("GET /v1/batches/batch_1", Reply(200, one(1)))

    make_provider("default", settings(eu=Account())).status("batch_1")

    assert ("authorization", "Bearer sk-from-file") in {
        (name.lower(), value) for name, value in server.seen[0].headers.items()
    }


def test_an_account_that_nobody_set_is_an_error_that_lists_the_others():
    with pytest.raises(SettingsError, match=r"'us'.*default, eu"):
        make_provider("us", settings(eu=Account()))


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            400,
            {"error": {"message": "Bad.", "code": "invalid_value", "param": "n"}},
            "RequestRejected",
        ),
        (404, {"error": {"message": "model", "code": "model_not_found"}}, "RequestRejected"),
        (401, {"error": {"message": "key"}}, "AccountPaused"),
        (429, {"error": {"message": "quota", "code": "insufficient_quota"}}, "AccountPaused"),
        (200, "text", "ProviderUnavailable"),
    ],
)
def test_failures_of_a_synchronous_call(
    server: ScriptedServer, provider: OpenAIProvider, status: int, body: Any, expected: str
):
    server.on("POST /v1/chat/completions", Reply(status, body, {"x-should-retry": "false"}))

    with pytest.raises(Exception, match="Account default") as raised:
        provider.run("/v1/chat/completions", {"model": "m"})

    assert type(raised.value).__name__ == expected


def test_a_synchronous_call_is_tried_again(
    server: ScriptedServer, provider: OpenAIProvider, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("openai._base_client.time.sleep", lambda _: None)
    server.on("POST /v1/embeddings", Reply(500, b""), Reply(429, b""), Reply(200, {"data": []}))

    assert provider.run("/v1/embeddings", {"model": "m"}) == {"data": []}
    assert len(server.seen) == 3
