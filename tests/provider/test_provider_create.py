"""The call that costs money: created once, found again when its answer is lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from lowtide.errors import (
    AccountPaused,
    BatchFailed,
    CreateAmbiguous,
    LowtideError,
    ProviderUnavailable,
)
from lowtide.providers import RemoteBatch
from lowtide.providers.openai import METADATA_KEY, OpenAIProvider
from tests.plugins.stack import Simulator
from tests.provider.server import DROP, Reply, ScriptedServer, Seen, refused_url

CREATE = "POST /v1/batches"
LIST = "GET /v1/batches"
Connect = Callable[[str], OpenAIProvider]


def batch(number: int = 1, **values: Any) -> dict[str, Any]:
    return {
        "id": f"batch_{number}",
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
        "completion_window": "24h",
        "status": "validating",
        "created_at": 1_700_000_000 + number,
        "metadata": {},
        **values,
    }


def error(message: str = "No.", **values: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": None, "param": None, "code": None, **values}}


def create(provider: OpenAIProvider) -> RemoteBatch:
    return provider.create("file-1", endpoint="/v1/chat/completions", batch_id="b1")


def test_a_refusal_with_half_an_emoji_is_one_that_can_be_written_down(
    server: ScriptedServer, provider: OpenAIProvider
):
    half = orjson.dumps(error("the sea HALF", code="HALF", param="HALF"))
    server.on(CREATE, Reply(400, half.replace(b"HALF", rb"\ud83d")))

    with pytest.raises(BatchFailed, match=r"the sea \?") as raised:
        create(provider)

    assert "?" in str(raised.value).encode().decode()
    assert (raised.value.code, raised.value.param) == ("?", "?")


def test_create_sends_our_id_once_and_reads_the_batch(
    server: ScriptedServer, provider: OpenAIProvider
):
    server.on(CREATE, Reply(200, batch(metadata={METADATA_KEY: "b1"})))

    made = create(provider)

    assert (made.id, made.status, made.ended) == ("batch_1", "validating", False)
    [sent] = server.calls(CREATE)
    assert sent.json == {
        "input_file_id": "file-1",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {METADATA_KEY: "b1"},
    }


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(500, error()), CreateAmbiguous),
        (Reply(502, b"<html>bad gateway</html>", {"Content-Type": "text/html"}), CreateAmbiguous),
        (Reply(503, error(), {"Retry-After": "5"}), CreateAmbiguous),
        (Reply(500, error(code="insufficient_quota")), CreateAmbiguous),
        (Reply(408, error()), CreateAmbiguous),
        (Reply(409, error()), CreateAmbiguous),
        (DROP, CreateAmbiguous),
        (Reply(200, b'{"id": "batch_1", "obj', cut=10), CreateAmbiguous),
        (Reply(200, b"not json"), CreateAmbiguous),
        (Reply(200, {"object": "batch"}), CreateAmbiguous),
        (Reply(200, []), CreateAmbiguous),
        (Reply(429, error(code="rate_limit_exceeded")), ProviderUnavailable),
        (Reply(429, error(code="insufficient_quota")), AccountPaused),
        (Reply(429, error(type="insufficient_quota")), AccountPaused),
        (Reply(400, error(code="billing_hard_limit_reached")), AccountPaused),
        (Reply(403, error(code="billing_hard_limit_reached")), AccountPaused),
        (Reply(401, error(code="invalid_api_key")), AccountPaused),
        (Reply(402, error()), AccountPaused),
        (Reply(403, error(code="model_not_found")), BatchFailed),
        (Reply(400, error(code="token_limit_exceeded")), ProviderUnavailable),
        (Reply(403, b""), AccountPaused),
        (Reply(404, b"", {"Content-Type": "text/plain"}), AccountPaused),
        (Reply(405, b"nope"), AccountPaused),
        (Reply(308, b""), AccountPaused),
        (Reply(400, error(code="invalid_value", param="endpoint")), BatchFailed),
        (Reply(404, error()), BatchFailed),
        (Reply(422, {"error": "only words"}), BatchFailed),
        (Reply(400, {"error": {"message": ["odd"], "code": {"a": 1}}}), BatchFailed),
    ],
)
def test_every_failure_of_create_has_its_error_and_is_sent_once(
    server: ScriptedServer, provider: OpenAIProvider, reply: Reply, expected: type[LowtideError]
):
    server.on(CREATE, reply)

    with pytest.raises(LowtideError) as raised:
        create(provider)

    assert type(raised.value) is expected
    assert len(server.calls(CREATE)) == 1
    assert "\n" not in raised.value.message
    assert raised.value.message.startswith("Account default")
    orjson.dumps(raised.value.details)


def test_a_refused_connection_surely_created_nothing(connect: Connect):
    with pytest.raises(ProviderUnavailable, match="did not reach"):
        create(connect(refused_url()))


def test_a_provider_that_does_not_answer_in_time_is_ambiguous(
    server: ScriptedServer, provider: OpenAIProvider, monkeypatch: pytest.MonkeyPatch
):
    def silent(_: Seen) -> Reply:
        server.released.wait(20)
        return DROP

    server.on(CREATE, silent)
    monkeypatch.setattr("lowtide.providers.openai._CALL", 0.2)

    with pytest.raises(CreateAmbiguous) as raised:
        create(provider)

    assert raised.value.details["cause"] == "ReadTimeout"


def test_what_the_provider_says_is_in_the_details(server: ScriptedServer, provider: OpenAIProvider):
    body = error("Too\nmany.", code="rate_limit_exceeded", param="model")
    server.on(CREATE, Reply(429, body, {"Retry-After": "7", "x-request-id": "req_1"}))

    with pytest.raises(ProviderUnavailable) as raised:
        create(provider)

    assert raised.value.details == {
        "account": "default",
        "status": 429,
        "code": "rate_limit_exceeded",
        "param": "model",
        "request_id": "req_1",
        "retry_after": 7.0,
    }
    assert raised.value.message == (
        "Account default: creating batch b1 was put off (429 rate_limit_exceeded): Too many."
    )


@pytest.mark.parametrize(
    "message",
    ["Incorrect API key: sk-proj-abcdefgh12345678.", "Bad header Bearer abcdefgh12345678"],
)
def test_a_key_that_the_provider_repeats_is_not_shown(
    server: ScriptedServer, provider: OpenAIProvider, message: str
):
    server.on(CREATE, Reply(401, error(message)))

    with pytest.raises(AccountPaused) as raised:
        create(provider)

    assert "abcdefgh" not in repr(raised.value)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "2.5"}, 2.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"Retry-After": "999999999"}, 86_400.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_every_form(
    server: ScriptedServer, provider: OpenAIProvider, headers: dict[str, str], wait: float | None
):
    server.on(CREATE, Reply(429, error(), headers))

    with pytest.raises(ProviderUnavailable) as raised:
        create(provider)

    assert raised.value.details.get("retry_after") == wait


def test_without_a_key_the_account_is_paused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(AccountPaused, match="set OPENAI_API_KEY"):
        create(OpenAIProvider("default", api_key=None))


def test_a_bad_base_url_creates_nothing(connect: Connect):
    with pytest.raises((ProviderUnavailable, AccountPaused)):
        create(connect("no-scheme:1/v1"))


def test_a_create_whose_answer_was_a_502_is_adopted_exactly_once(
    through: ScriptedServer, connect: Connect, simulator: Simulator, tmp_path: Path
):
    def created_but_502(seen: Seen) -> Reply:
        assert through.forward(seen).status == 200
        return Reply(502, b"")

    provider = connect(through.base_url)
    path = tmp_path / "batch.jsonl"
    path.write_bytes(
        b'{"custom_id":"a","method":"POST","url":"/v1/embeddings",'
        b'"body":{"model":"text-embedding-3-small","input":"x"}}\n'
    )
    file_id = provider.upload(path, batch_id="b-502")
    through.on(CREATE, created_but_502)

    with pytest.raises(CreateAmbiguous):
        provider.create(file_id, endpoint="/v1/embeddings", batch_id="b-502")
    found = provider.adopt("b-502", since=0.0, input_file_id=file_id)

    assert found is not None
    assert found.metadata == {METADATA_KEY: "b-502"}
    assert len(through.calls(CREATE)) == 1
    listed = connect(simulator.base_url)._pages("listing")
    ours = [one for one in itertools.chain(*listed) if one.metadata.get(METADATA_KEY) == "b-502"]
    assert [one.id for one in ours] == [found.id]


def pages(*batches: list[dict[str, Any]]) -> list[Reply]:
    return [
        Reply(
            200,
            {
                "object": "list",
                "data": page,
                "has_more": page is not batches[-1],
                "last_id": page[-1]["id"] if page else None,
            },
        )
        for page in batches
    ]


def test_adopt_walks_the_pages_until_it_finds_ours(
    server: ScriptedServer, provider: OpenAIProvider
):
    ours = batch(3, metadata={METADATA_KEY: "b1"})
    others = [batch(number, input_file_id="file-0") for number in (5, 4, 2, 1)]
    server.on(LIST, *pages(others[:2], [ours, others[2]], others[3:]))

    found = provider.adopt("b1", since=0.0, input_file_id="file-1")

    assert found is not None
    assert found.id == "batch_3"
    assert [call.path for call in server.calls(LIST)] == [
        "/v1/batches?limit=100",
        "/v1/batches?limit=100&after=batch_4",
    ]


def test_adopt_stops_at_batches_that_are_older(server: ScriptedServer, provider: OpenAIProvider):
    old = batch(1, metadata={METADATA_KEY: "b1"})
    server.on(LIST, *pages([batch(9), batch(8)], [batch(7)], [old]))

    assert provider.adopt("b1", since=1_700_000_008.5) is None
    assert len(server.calls(LIST)) == 1


def test_adopt_does_not_stop_early_in_a_list_that_is_oldest_first(
    server: ScriptedServer, provider: OpenAIProvider
):
    ours = batch(9, metadata={METADATA_KEY: "b1"})
    server.on(LIST, *pages([batch(1), batch(2)], [batch(3), ours]))

    found = provider.adopt("b1", since=1_700_000_005.0)

    assert found is not None
    assert found.id == "batch_9"


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        (batch(metadata={METADATA_KEY: "b1"}), True),
        (batch(metadata={METADATA_KEY: "b1"}, input_file_id=None), True),
        (batch(metadata={METADATA_KEY: "b1"}, input_file_id="file-0"), False),
        (batch(metadata=None), True),
        (batch(metadata=None, input_file_id="file-0"), False),
        (batch(metadata=None, input_file_id=""), False),
        (batch(metadata={METADATA_KEY: "b2"}), False),
        (batch(metadata="odd", input_file_id=7), False),
        ({"id": ""}, False),
        (None, False),
    ],
)
def test_only_the_batch_of_this_very_create_is_adopted(
    server: ScriptedServer, provider: OpenAIProvider, listed: Any, found: bool
):
    server.on(LIST, Reply(200, {"data": [listed], "has_more": False}))

    assert (provider.adopt("b1", since=0.0, input_file_id="file-1") is not None) is found


@pytest.mark.parametrize(
    "replies",
    [
        [Reply(500, error())],
        [Reply(200, {"data": None})],
        [Reply(200, {"data": [batch(9)], "has_more": True, "last_id": "batch_9"})],
        [Reply(200, {"data": [], "has_more": True})],
    ],
)
def test_a_list_that_cannot_be_read_to_its_end_never_says_that_there_is_none(
    server: ScriptedServer, provider: OpenAIProvider, replies: list[Reply]
):
    server.on(LIST, *replies)

    with pytest.raises(ProviderUnavailable):
        provider.adopt("b1", since=0.0)
    assert len(server.calls(LIST)) <= 3


def test_a_page_of_a_search_that_fails_is_read_again_alone(
    server: ScriptedServer, provider: OpenAIProvider
):
    first = Reply(200, {"data": [batch(9)], "has_more": True, "last_id": "batch_9"})
    second = Reply(200, {"data": [batch(8, metadata={METADATA_KEY: "b1"})], "has_more": False})
    server.on(LIST, first, Reply(500, error()), Reply(503, error()), second)

    found = provider.adopt("b1", since=0.0)

    assert found is not None
    assert found.id == "batch_8"
    asked = [call.path.partition("after=")[2] for call in server.calls(LIST)]
    assert asked == ["", "batch_9", "batch_9", "batch_9"]
