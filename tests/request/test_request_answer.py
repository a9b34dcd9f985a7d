"""An answer read the same way for every endpoint; errors say where and never what."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator

from lowtide.answer import Answer
from lowtide.errors import InvalidAnswer, LowtideError
from lowtide.request import CHAT, EMBEDDINGS, RESPONSES
from lowtide.tokens import Usage, estimate

SECRET = "Confidential answer"


class Inner(BaseModel):
    number: int


class Ticket(BaseModel):
    title: str
    tags: dict[str, int] = {}
    inner: list[Inner] = []

    @field_validator("title")
    @classmethod
    def _short(cls, value: str) -> str:
        if len(value) > 50:
            raise ValueError(f"too long: {value}")
        return value


def chat_answer(
    content: Any = None, output: type[BaseModel] | None = None, reason: str = "stop", **message: Any
) -> Answer:
    body = {
        "model": "gpt-5-mini-2025-08-07",
        "choices": [
            {
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": reason,
            }
        ],
        "usage": {"prompt_tokens": 5},
    }
    return Answer(CHAT, body, output)


def response(*items: Any, output: type[BaseModel] | None = None, **fields: Any) -> Answer:
    return Answer(RESPONSES, {"status": "completed", "output": list(items), **fields}, output)


def message(*parts: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(parts)}


def said(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text}


REFUSAL = {"type": "refusal", "refusal": "I cannot help."}
TOOL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FUNCTION = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    "answer",
    [
        chat_answer("Hello"),
        chat_answer([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]),
        response({"type": "reasoning", "summary": []}, message(said("Hel"), said("lo"))),
        response(message(said("Hel")), message(said("lo"))),
        Answer("/v1/completions", {"choices": [{"text": "Hello", "finish_reason": "stop"}]}),
    ],
)
def test_the_text_of_an_answer(answer: Answer):
    assert answer.text == "Hello"
    assert answer.value() == "Hello"
    assert answer.refusal is None
    assert answer.finish_reason == "stop"


def test_model_and_usage():
    assert chat_answer("x").model == "gpt-5-mini-2025-08-07"
    assert chat_answer("x").usage == {"prompt_tokens": 5}
    assert response().usage == {}
    assert response().model is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            "content_filter",
        ),
        ({"status": "incomplete"}, "incomplete"),
    ],
)
def test_responses_stop_for_the_same_reasons_as_chats(fields: dict[str, Any], reason: str):
    assert response(message(said("x")), **fields).finish_reason == reason


@pytest.mark.parametrize(
    "answer",
    [
        chat_answer('{"title": "T"}', Ticket),
        response(message(said('{"title": "T"}')), output=Ticket),
    ],
)
def test_structured_output_is_validated(answer: Answer):
    parsed = answer.parsed

    assert isinstance(parsed, Ticket)
    assert parsed.title == "T"
    assert answer.parsed is parsed
    assert answer.value() == {"title": "T", "tags": {}, "inner": []}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (SECRET, "the whole (json_invalid)"),
        (f'["{SECRET}"]', "the whole (model_type)"),
        ("{}", "title (missing)"),
        ('{"title": 5}', "title (string_type)"),
        (f'{{"title": "T", "tags": {{"{SECRET}": "x"}}}}', "tags.* (int_parsing)"),
        (
            f'{{"title": "T", "inner": [{{"number": 1}}, {{"number": "{SECRET}"}}]}}',
            "inner.1.number (int_parsing)",
        ),
        (f'{{"title": "{SECRET * 5}"}}', "title (value_error)"),
    ],
)
def test_an_answer_that_does_not_validate_says_where_and_never_what(text: str, where: str):
    answer = chat_answer(text, Ticket)

    with pytest.raises(InvalidAnswer) as raised:
        answer.value()

    assert raised.value.code == "invalid_output"
    assert raised.value.details["errors"] == [where]
    assert str(raised.value) == f"The answer does not validate as Ticket: {where}."
    assert "Confidential" not in repr(raised.value)
    assert raised.value.__suppress_context__


def test_many_errors_are_counted_not_listed():
    text = '{"title": 1, "inner": [' + ",".join(['{"number": "x"}'] * 20) + "]}"

    with pytest.raises(InvalidAnswer) as raised:
        chat_answer(text, Ticket).value()

    assert raised.value.details["errors"][-1] == "16 more"


@pytest.mark.parametrize(
    "answer",
    [
        chat_answer(None, Ticket, refusal="I cannot help."),
        response(message(REFUSAL), output=Ticket),
        chat_answer(None, None, refusal="I cannot help."),
        response(message(REFUSAL)),
    ],
)
def test_a_refusal_is_visible_and_is_no_result(answer: Answer):
    assert answer.refusal == "I cannot help."
    assert answer.text == ""
    with pytest.raises(InvalidAnswer, match="refused") as raised:
        answer.value()
    assert raised.value.code == "refusal"
    assert "cannot help" not in repr(raised.value)


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_structured_answer_that_was_cut_off_says_so(reason: str):
    with pytest.raises(InvalidAnswer, match="cut off") as raised:
        chat_answer('{"title": "T', Ticket, reason).value()

    assert raised.value.code == reason


def test_a_plain_answer_that_was_cut_off_is_still_text():
    assert chat_answer("Hel", reason="length").value() == "Hel"


def test_an_answer_of_tool_calls_is_given_back_whole():
    chat_call = chat_answer(None, Ticket, "tool_calls", tool_calls=[TOOL])
    response_call = response(FUNCTION)

    assert chat_call.tool_calls == [TOOL]
    assert chat_call.value() == {"role": "assistant", "content": None, "tool_calls": [TOOL]}
    assert response_call.tool_calls == [FUNCTION]
    assert response_call.finish_reason == "tool_calls"
    assert response_call.value() == [FUNCTION]


def test_an_answer_without_a_model_to_parse_with():
    with pytest.raises(TypeError, match="no output= model"):
        _ = chat_answer("x").parsed


def vectors(*rows: Any) -> Answer:
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
    return Answer(
        EMBEDDINGS, {"data": data[::-1], "usage": {"prompt_tokens": 2, "total_tokens": 2}}
    )


def test_vectors_come_in_the_order_of_their_inputs():
    answer = vectors([1.0, 0.5], [2, 3])

    assert answer.embeddings == [[1.0, 0.5], [2, 3]]
    assert answer.value(many=True) == [[1.0, 0.5], [2, 3]]
    assert answer.value() == answer.embedding == [1.0, 0.5]


def test_vectors_in_base64_are_decoded():
    encoded = base64.b64encode(struct.pack("<3f", 1.0, -0.5, 0.25)).decode()

    assert vectors(encoded).embedding == [1.0, -0.5, 0.25]


@pytest.mark.parametrize("row", [None, [], "", "not base64!", "QQ==", ["x"], {"a": 1}])
def test_what_is_no_vector(row: Any):
    with pytest.raises(InvalidAnswer):
        vectors(row).value()


def test_no_vectors_at_all():
    with pytest.raises(InvalidAnswer, match="no embeddings"):
        Answer(EMBEDDINGS, {"data": []}).value()


MODERATED = {"id": "modr-1", "results": [{"flagged": False}, {"flagged": True}]}
PICTURES = {"created": 1, "data": [{"b64_json": "AA=="}, {"url": "https://x/2.png"}]}
WRITTEN = {"choices": [{"index": 1, "text": "two"}, {"index": 0, "text": "one"}]}


@pytest.mark.parametrize(
    ("endpoint", "body", "several"),
    [
        ("/v1/moderations", MODERATED, MODERATED["results"]),
        ("/v1/images/generations", PICTURES, PICTURES["data"]),
        ("/v1/completions", WRITTEN, ["one", "two"]),
    ],
)
def test_endpoints_of_lists_give_one_or_all(endpoint: str, body: dict[str, Any], several: Any):
    assert Answer(endpoint, body).value() == several[0]
    assert Answer(endpoint, body).value(True) == several


@pytest.mark.parametrize(
    "endpoint", ["/v1/moderations", "/v1/images/generations", "/v1/completions"]
)
def test_endpoints_of_lists_refuse_an_empty_answer(endpoint: str):
    with pytest.raises(InvalidAnswer):
        Answer(endpoint, {"id": "x"}).value()


def test_other_endpoints_give_their_body():
    body = {"id": "video_1", "status": "completed"}

    assert Answer("/v1/videos", body).value() == body


def test_words_beside_tool_calls_do_not_hide_them():
    chat_call = chat_answer("Let me look.", None, "tool_calls", tool_calls=[TOOL])

    assert chat_call.value()["tool_calls"] == [TOOL]
    assert chat_call.value()["content"] == "Let me look."


def test_tools_that_the_provider_ran_itself_leave_a_text():
    search = {"type": "web_search_call", "status": "completed"}
    message = {"type": "message", "content": [{"type": "output_text", "text": "Found."}]}
    answer = Answer(RESPONSES, {"status": "completed", "output": [search, message]})

    assert answer.value() == "Found."
    assert answer.tool_calls == []
    assert answer.finish_reason == "stop"


def test_a_repr_never_shows_the_text():
    assert SECRET not in repr(chat_answer(SECRET))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "message", "content", "output", "type", "data", "embedding", "usage", "text", "tool_calls", "refusal", "incomplete_details"]), inner, max_size=4
    ),
    max_leaves=12,
)  # fmt: skip


@given(
    st.sampled_from([CHAT, RESPONSES, EMBEDDINGS, "/v1/completions"]),
    st.dictionaries(st.sampled_from(["choices", "output", "data", "usage", "model", "status", "incomplete_details"]), JSON),
    st.sampled_from([None, Ticket]),
)  # fmt: skip
def test_no_body_is_too_odd_to_read(endpoint: str, body: dict[str, Any], output: Any):
    answer = Answer(endpoint, body, output)

    assert isinstance(answer.text, str)
    assert isinstance(answer.tool_calls, list)
    assert isinstance(answer.usage, dict)
    assert answer.finish_reason is None or isinstance(answer.finish_reason, str)
    Usage.of(body.get("usage"))
    try:
        answer.value()
    except LowtideError as error:
        assert isinstance(error, InvalidAnswer)  # noqa: PT017 - no other error is allowed


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 3}},
            Usage(10, 4, 5, 3),
        ),
        (
            {"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 4}, "output_tokens_details": {"reasoning_tokens": 3}},
            Usage(10, 4, 5, 3),
        ),
        ({"prompt_tokens": 2, "total_tokens": 2}, Usage(2, 0, 0, 0)),
        ({"prompt_tokens": 2, "prompt_tokens_details": None}, Usage(2, 0, 0, 0)),
        ({"prompt_tokens": -2}, None),
        ({"prompt_tokens": "2"}, None),
        ({"prompt_tokens": True}, None),
        ({}, None),
        (None, None),
        ([], None),
    ],
)  # fmt: skip
def test_usage_of_every_endpoint(usage: Any, expected: Usage | None):
    assert Usage.of(usage) == expected


def test_tokens_are_estimated_rather_too_many():
    english = "The quick brown fox jumps over the lazy dog. " * 100  # ten tokens each time

    assert 1_000 < estimate(len(english)) < 2_000
    assert estimate(0) > 0
