"""Result files: success is a 2xx status and nothing else, whatever bytes come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lowtide import outcomes, results
from lowtide.results import Again, Answered, Line, Outcome, Rejected, parse_line, read_lines
from lowtide.tokens import Usage

BODY = {
    "choices": [{"message": {"content": "Hi"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}


def outcome(**fields: Any) -> Outcome:
    line = parse_line(orjson.dumps({"id": "batch_req_1", "custom_id": "a.0.0", **fields}))
    assert line is not None
    assert line.custom_id == "a.0.0"
    return line.outcome


def http(status: Any, body: Any = None) -> dict[str, Any]:
    return {"status_code": status, "request_id": "req_1", "body": body}


def failure(**values: Any) -> dict[str, Any]:
    return {"error": {"message": "Why.", "type": None, "param": None, "code": None, **values}}


@pytest.mark.parametrize("status", [200, 201, 299, "200"])
def test_a_2xx_is_an_answer(status: Any):
    found = outcome(response=http(status, BODY), error=None)

    assert found == Answered(int(status), BODY, "req_1")
    assert found.usage == Usage(3, 0, 2, 0)


def test_a_2xx_is_an_answer_even_beside_an_error():
    assert isinstance(outcome(response=http(200, BODY), error={"code": "x"}), Answered)


def test_an_answer_without_usage_has_none_rather_than_zero():
    found = outcome(response=http(200, {"data": []}), error=None)
    assert isinstance(found, Answered)
    assert found.usage is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"response": http(400, failure(code="invalid_value", param="n")), "error": None}, Rejected("invalid_value", "n", "Why.", 400, "req_1")),
        ({"response": http(404, failure(type="not_found"))}, Rejected("not_found", None, "Why.", 404, "req_1")),
        ({"response": http(422, "just words")}, Rejected(None, None, "just words", 422, "req_1")),
        ({"response": http(400, None), "error": {"code": "c", "message": "beside"}}, Rejected("c", None, "beside", 400, "req_1")),
        ({"response": http(400)}, Rejected(None, None, "", 400, "req_1")),
        ({"response": None, "error": {"code": "invalid_request", "message": "Why."}}, Rejected("invalid_request", None, "Why.", None)),
        ({"response": None, "error": {"code": "model_not_found", "message": "Why."}}, Rejected("model_not_found", None, "Why.", None)),
        ({"response": http(429, failure(code="rate_limit_exceeded"))}, Again("rate_limited", "rate_limit_exceeded", "Why.", 429)),
        ({"response": http(429, failure(code="insufficient_quota"))}, Again("rate_limited", "insufficient_quota", "Why.", 429)),
        ({"response": http(400, failure(code="billing_hard_limit_reached"))}, Again("no_response", "billing_hard_limit_reached", "Why.", 400)),
        ({"response": http(500, failure())}, Again("server_error", None, "Why.", 500)),
        ({"response": http(503, "<html>")}, Again("server_error", None, "<html>", 503)),
        ({"response": http(408, failure())}, Again("no_response", None, "Why.", 408)),
        ({"response": http(0, BODY), "error": None}, Again("no_response", None, "", 0)),
        ({"response": http(None, BODY)}, Again("no_response", None, "", None)),
        ({"response": http(True, BODY)}, Again("no_response", None, "", None)),
        ({"response": http(302, BODY)}, Again("no_response", None, "", 302)),
        ({"response": http(200, None)}, Again("unreadable", None, "The answer has no body.", 200)),
        ({"response": http(200, "text")}, Again("unreadable", None, "The answer has no body.", 200)),
        ({"response": {}, "error": {"code": "batch_expired", "message": "Late."}}, Again("expired", "batch_expired", "Late.", None)),
        ({"response": None, "error": {"code": "batch_expired", "message": "Late."}}, Again("expired", "batch_expired", "Late.")),
        ({"response": None, "error": {"code": "batch_cancelled", "message": ""}}, Again("cancelled", "batch_cancelled", "")),
        ({"response": None, "error": {"code": "request_timeout", "message": ""}}, Again("timeout", "request_timeout", "")),
        ({"response": None, "error": {"code": "brand_new", "message": "?"}}, Again("no_response", "brand_new", "?")),
        ({"response": None, "error": "words"}, Again("no_response", None, "words")),
        ({"response": None, "error": None}, Again("no_response", None, "")),
        ({}, Again("no_response", None, "")),
        ({"response": [1]}, Again("no_response", None, "")),
    ],
)  # fmt: skip
def test_every_other_shape(fields: dict[str, Any], expected: Outcome):
    assert outcome(**fields) == expected


def test_a_response_that_failed_inside_a_200_is_no_answer():
    failed = {
        "status": "failed",
        "error": {"code": "server_error", "message": "Oops."},
        "output": [],
    }
    refused = {"status": "failed", "error": {"code": "invalid_prompt", "message": "No."}}
    done: dict[str, Any] = {"status": "completed", "error": None, "output": []}

    assert outcome(response=http(200, failed)) == Again("server_error", "server_error", "Oops.")
    assert isinstance(outcome(response=http(200, refused)), Rejected)
    assert isinstance(outcome(response=http(200, done)), Answered)


def test_a_long_message_is_cut():
    found = outcome(response=http(400, failure(message="x" * 10_000)))
    assert isinstance(found, Rejected)
    assert len(found.message) == 1_000


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"a"',
        b"{",
        b"{}",
        b'{"custom_id": null}',
        b'{"custom_id": ""}',
        b'{"custom_id": 7}',
        b'{"custom_id": ["a"]}',
        b'{"response": {"custom_id": "a"}}',
        b"[" * 100_000,
        b"\x00\xff\xfe",
        b'{"custom_id": "a", "n": ' + b"9" * 10_000,
    ],
)
def test_a_line_that_names_no_request_is_none(raw: bytes):
    assert parse_line(raw) is None


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (rb'{"custom_id":"a","response":{"status_code":200,"body":{"t":"half \ud83d"}}}', "half ?"),
        (b'{"custom_id":"a","response":{"status_code":200,"body":{"t":"byte \xff"}}}', "byte �"),
        (b'{"custom_id":"a","response":{"status_code":200,"body":{"t":"nan","x":NaN}}}', "nan"),
        (b'{"custom_id":"a","response":{"status_code":200,"body":{"t":"inf","x":1e999}}}', "inf"),
    ],
)
def test_a_paid_answer_with_one_bad_character_is_kept(raw: bytes, text: str):
    line = parse_line(raw)

    assert line is not None
    assert isinstance(line.outcome, Answered)
    assert line.outcome.body["t"] == text
    orjson.dumps(line.outcome.body)


# ------------------------------------------------------------------ a glance

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


def test_a_glance_tells_an_answer_and_keeps_its_body_byte_for_byte():
    raw = b'{"custom_id":"a","response":{"body":{"n": 1e2 ,"x":"\\u00e9"},"status_code":201}}'

    assert results.glance(raw, CHAT) == outcomes.Answered(
        "a", 201, rb'{"n": 1e2 ,"x":"\u00e9"}', None
    )


@pytest.mark.parametrize(
    ("fields", "endpoint"),
    [
        ({"response": http(400, BODY)}, CHAT),
        ({"response": http("200", BODY)}, CHAT),
        ({"response": http(200, [])}, CHAT),
        ({"response": http(200, None)}, CHAT),
        ({"response": None, "error": {"code": "x"}}, CHAT),
        ({"response": http(200, {"status": "failed", "error": {"code": "x"}})}, RESPONSES),
    ],
)
def test_a_glance_leaves_what_is_not_surely_an_answer(fields: dict[str, Any], endpoint: str):
    assert results.glance(orjson.dumps({"custom_id": "a", **fields}), endpoint) is None


def test_an_answer_that_only_speaks_of_a_failure_is_one_at_a_glance():
    body = {"status": "completed", "output": 'It said "failed".'}

    assert results.glance(orjson.dumps({"custom_id": "a", "response": http(200, body)}), RESPONSES)


@pytest.mark.parametrize(
    "value", [b"NaN", b"1.", b"01", b"+1", b"tru", b'"\\x"', b'"\x01"', b"[1,]"]
)
def test_a_glance_never_takes_a_line_that_is_no_json(value: bytes):
    raw = b'{"custom_id":"a","response":{"status_code":200,"body":{"x":%s}}}' % value

    assert results.glance(raw, CHAT) is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"t":"byte \xff"}', {"t": "byte \ufffd"}),
        (b'{"t":1e999}', {"t": None}),
        (b"[]", None),
        (b'{"t":', None),
    ],
)
def test_the_body_of_a_paid_answer_is_read_with_its_bad_characters(raw: bytes, expected: Any):
    assert results.read_body(raw) == expected


# ------------------------------------------------------------------ hostile bytes

IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-10, 600) | st.text(max_size=12)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["custom_id", "error", "code", "message", "status_code", "body", "usage", "prompt_tokens", "x"]), inner, max_size=4
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["response", "error", "id", "x"]), JSON), IDS)
def test_any_json_gives_the_outcome_of_its_own_id(fields: dict[str, Any], custom_id: str):
    line = parse_line(json.dumps({**fields, "custom_id": custom_id}).encode())

    assert line is not None
    assert line.custom_id == custom_id
    seen = results.glance(json.dumps({**fields, "custom_id": custom_id}).encode(), CHAT)
    if seen is not None:
        assert line.outcome == Answered(
            seen.status_code, results.read_body(seen.body) or {}, seen.request_id
        )
    response = fields.get("response")
    status = response.get("status_code") if isinstance(response, dict) else None
    if isinstance(line.outcome, Answered):
        assert isinstance(response, dict)
        assert str(status).startswith("2")
        assert line.outcome.body == response["body"]


@given(st.binary(max_size=200))
@example(b'{"custom_id":"a"}\x00')
@example(b'\xef\xbb\xbf{"custom_id":"a"}')
def test_any_bytes_give_a_line_or_none(raw: bytes):
    assert isinstance(parse_line(raw), Line | None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_lines_survive_garbage_between_them_and_never_mix(data: st.DataObject, tmp_path: Path):
    separators = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]
    texts = st.lists(st.sampled_from([*separators, "a", "é", "😀"]), max_size=6).map("".join)
    sent = data.draw(st.dictionaries(IDS, texts, max_size=6))
    rows = [
        json.dumps(
            {"custom_id": custom_id, "response": http(200, {"t": text})},
            ensure_ascii=data.draw(st.booleans()),
        ).encode()
        for custom_id, text in sent.items()
    ]
    garbage = st.sampled_from(
        [b"", b"   ", b"\r", b"{", b"\xff\xfe", b"null", b'{"custom_id":']
    ) | st.binary(max_size=20).map(lambda raw: b"!" + raw.replace(b"\n", b""))
    for junk in data.draw(st.lists(garbage, max_size=4)):
        rows.insert(data.draw(st.integers(0, len(rows))), junk)
    end = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    path = tmp_path / "out.jsonl"
    path.write_bytes(
        data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
        + end.join(rows)
        + data.draw(st.sampled_from([b"", end]))
    )

    lines = [line for raw in read_lines(path) if (line := parse_line(raw)) is not None]

    found = {
        line.custom_id: line.outcome.body["t"]
        for line in lines
        if isinstance(line.outcome, Answered)
    }
    assert found == sent
    assert len(lines) == len(sent)


def test_a_line_beyond_all_measure_is_left_out_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(results, "MAX_LINE", 100)
    path = tmp_path / "out.jsonl"
    fits = b'"' + b"y" * 97 + b'"'
    path.write_bytes(b"first\n" + b"x" * 1_000 + b"\n" + fits + b"\nlast\n" + b"z" * 350)

    assert list(read_lines(path)) == [b"first", fits, b"last"]


def test_an_empty_file_has_no_lines(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"")

    assert list(read_lines(path)) == []
