"""What a task returns becomes a call, or a clear error at once."""

from __future__ import annotations

import math
from datetime import date
from enum import Enum
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from lowtide.errors import EndpointNotBatchable, InvalidRequest, LowtideError, RequestTooLarge
from lowtide.inputs import check
from lowtide.lane import Lane
from lowtide.providers.profiles import OPENAI
from lowtide.request import CHAT, EMBEDDINGS, RESPONSES, Call, chat, embed, encode, respond, to_call
from lowtide.schema import response_format, text_format

SECRET = "Confidential prompt"
HELLO = [{"role": "user", "content": "Hello"}]


class Ticket(BaseModel):
    title: str
    urgent: bool = False


class Color(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("returned", "endpoint", "body"),
    [
        ("Hello", CHAT, {"messages": HELLO}),
        (HELLO, CHAT, {"messages": HELLO}),
        (tuple(HELLO), CHAT, {"messages": HELLO}),
        ({"messages": HELLO, "temperature": 0}, CHAT, {"messages": HELLO, "temperature": 0}),
        (chat("Hello"), CHAT, {"messages": HELLO}),
        (chat(HELLO, system="Be kind."), CHAT, {"messages": [{"role": "system", "content": "Be kind."}, *HELLO]}),
        (chat("Hello", n=2), CHAT, {"messages": HELLO, "n": 2}),
        ("Hello", RESPONSES, {"input": "Hello"}),
        (HELLO, RESPONSES, {"input": HELLO}),
        (respond("Hello", instructions="Be kind."), RESPONSES, {"input": "Hello", "instructions": "Be kind."}),
        ("Hello", EMBEDDINGS, {"input": "Hello"}),
        (["a", "b"], EMBEDDINGS, {"input": ["a", "b"]}),
        (embed(("a", "b"), dimensions=8), EMBEDDINGS, {"input": ["a", "b"], "dimensions": 8}),
        ("Hello", "/v1/completions", {"prompt": "Hello"}),
        ("Hello", "/v1/moderations", {"input": "Hello"}),
    ],
)  # fmt: skip
def test_every_form_of_a_request(returned: object, endpoint: str, body: dict[str, Any]):
    call = to_call(returned, endpoint=endpoint, model="m")

    assert call == Call(endpoint, {**body, "model": "m"}, None)


def test_a_call_goes_to_its_own_endpoint_without_the_tasks_parameters():
    call = to_call(embed("a"), endpoint=CHAT, model="m", params={"temperature": 0}, output=Ticket)

    assert call == Call(EMBEDDINGS, {"input": "a", "model": "m"}, None)


def test_the_nearest_setting_wins():
    params = {"temperature": 0, "n": 1}

    assert to_call("x", model="task", params=params).body["temperature"] == 0
    assert to_call(chat("x", temperature=1), model="task", params=params).body["temperature"] == 1
    assert to_call(chat("x", model="call"), model="task").body["model"] == "call"
    assert to_call({"messages": HELLO, "model": "body"}, model="task").body["model"] == "body"


def test_output_puts_its_schema_into_the_body():
    assert to_call("x", model="m", output=Ticket).body["response_format"] == response_format(Ticket)
    call = to_call(respond("x", output=Ticket, text={"verbosity": "low"}), model="m")
    assert call.body["text"] == {"verbosity": "low", "format": text_format(Ticket)}
    assert call.output is Ticket


def test_a_format_of_the_bodys_own_stays():
    own = {"type": "json_object"}
    body = {"messages": HELLO, "response_format": own}

    assert to_call(body, model="m", output=Ticket).body["response_format"] == own


def test_the_callers_own_dict_is_not_changed():
    body: dict[str, Any] = {"messages": HELLO}
    to_call(body, model="m", params={"n": 1}, output=Ticket)

    assert body == {"messages": HELLO}


@pytest.mark.parametrize(
    ("returned", "endpoint", "expected", "match"),
    [
        (None, CHAT, InvalidRequest, "gave None"),
        (7, CHAT, InvalidRequest, "type int"),
        (b"bytes", CHAT, InvalidRequest, "type bytes"),
        ({}, CHAT, InvalidRequest, "no list of messages"),
        ({"messages": []}, CHAT, InvalidRequest, "no list of messages"),
        ({"messages": "Hello"}, CHAT, InvalidRequest, "no list of messages"),
        (["Hello"], CHAT, InvalidRequest, "no list of messages"),
        ({"messages": HELLO, "stream": True}, CHAT, InvalidRequest, "stream: true"),
        ({"messages": HELLO, "stream": 1}, CHAT, InvalidRequest, "stream: true"),
        ({"messages": HELLO, "model": ""}, CHAT, InvalidRequest, "names no model"),
        ({"messages": HELLO, "model": 5}, CHAT, InvalidRequest, "names no model"),
        ("Hello", "/v1/audio/speech", EndpointNotBatchable, "'/v1/audio/speech' has no batch form"),
        ("Hello", "/chat/completions", EndpointNotBatchable, "/v1/chat/completions"),
    ],
)
def test_what_cannot_be_a_request(
    returned: object, endpoint: str, expected: type[LowtideError], match: str
):
    with pytest.raises(expected, match=match) as raised:
        to_call(returned, endpoint=endpoint, model="m")

    assert type(raised.value) is expected
    assert "\n" not in str(raised.value)


def test_a_request_without_a_model_says_where_to_set_it():
    with pytest.raises(InvalidRequest, match="set model= on the task") as raised:
        to_call("Hello")

    assert raised.value.code == "missing_model"


def test_output_on_an_endpoint_without_structured_output():
    with pytest.raises(InvalidRequest, match="output= needs"):
        to_call(Call(EMBEDDINGS, {"input": "a"}, Ticket), model="m")


def test_stream_false_is_no_stream():
    assert to_call({"messages": HELLO, "stream": False}, model="m").body["stream"] is False


@pytest.mark.parametrize(
    ("call", "many"),
    [
        (embed("a"), False),
        (embed(["a"]), True),
        (Call(EMBEDDINGS, {"input": [1, 2, 3]}), False),
        (Call(EMBEDDINGS, {"input": [[1, 2], [3]]}), True),
        (respond(HELLO), False),
        (chat("a"), False),
    ],
)
def test_only_several_embedding_inputs_give_many_answers(call: Call, many: bool):
    assert call.many is many


def deep(levels: int) -> Any:
    value: Any = SECRET
    for _ in range(levels):
        value = [value]
    return value


def cyclic() -> list[Any]:
    value: list[Any] = [SECRET]
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (math.nan, "body.metadata.a is nan"),
        ([1.0, -math.inf], "body.metadata.a[1] is -inf"),
        ({SECRET}, "body.metadata.a is of type set"),
        (SECRET.encode(), "body.metadata.a is of type bytes"),
        (SECRET + "\ud800", "body.metadata.a holds a lone surrogate"),
        ({"b": object()}, "body.metadata.a.b is of type object"),
        ({SECRET: object()}, "body.metadata.a.? is of type object"),
        ({7: SECRET}, "body.metadata.a has a key of type int"),
        (2**70, "body.metadata.a is an integer of more than 64 bits"),
        (complex(1), "body.metadata.a is of type complex"),
        (Ticket(title=SECRET), "body.metadata.a is of type Ticket"),
        (deep(300), "body is nested more than 250 deep"),
        (cyclic(), "body is nested more than 250 deep"),
    ],
)
def test_a_body_that_is_not_json_says_where_and_never_what(value: Any, where: str):
    call = to_call(
        {"messages": [{"role": "user", "content": SECRET}], "metadata": {"a": value}}, model="m"
    )

    with pytest.raises(InvalidRequest) as raised:
        encode(call, account="default")

    assert where in str(raised.value)
    assert raised.value.code == "invalid_json"
    assert SECRET not in repr(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_nulls_are_json():
    call = to_call({"messages": HELLO, "stop": None, "x": [None, 1.5]}, model="m")

    assert b'"stop":null' in encode(call, account="default")[1]


def test_dates_and_enums_are_written_as_text():
    call = to_call(
        {"messages": HELLO, "metadata": {"d": date(2026, 1, 2), "c": Color.RED}}, model="m"
    )

    assert orjson.loads(encode(call, account="default")[1])["metadata"] == {
        "d": "2026-01-02",
        "c": "red",
    }


def test_keys_that_are_no_text_are_refused_at_the_top_too():
    returned: Any = {"messages": HELLO, 5: 1}
    with pytest.raises(InvalidRequest, match="key of type int"):
        encode(to_call(returned, model="m"), account="default")


def test_a_request_over_the_file_limit_names_both_sizes_and_no_content():
    call = to_call(SECRET * 1_000, model="m")

    with pytest.raises(RequestTooLarge, match=r"19,\d{3} bytes, more than the 10,000") as raised:
        encode(call, account="default", max_bytes=10_000)

    assert SECRET not in repr(raised.value)
    assert raised.value.details["limit"] == 10_000


def test_encode_gives_lane_body_and_tokens():
    lane, body, tokens = encode(to_call("Hello", model="gpt-5-mini"), account="eu")

    assert lane == Lane("eu", CHAT, "gpt-5-mini")
    assert body == b'{"model":"gpt-5-mini","messages":[{"role":"user","content":"Hello"}]}'
    assert len(body) / 4 < tokens < len(body)


def test_equal_bodies_are_equal_bytes_but_schemas_keep_their_order():
    first = Call(CHAT, {"model": "m", "messages": HELLO, "n": 1, "b": {"z": 1, "a": 2}})
    second = Call(CHAT, {"b": {"z": 1, "a": 2}, "n": 1, "messages": HELLO, "model": "m"})

    assert encode(first, account="a")[1] == encode(second, account="a")[1]
    assert b'{"z":1,"a":2}' in encode(first, account="a")[1]


def test_max_tokens_do_not_count_as_input():
    few = encode(to_call(chat("x", max_tokens=10), model="m"), account="a")[2]
    many = encode(to_call(chat("x", max_tokens=99), model="m"), account="a")[2]

    assert few == many


def test_an_error_never_shows_the_body_of_a_call():
    assert SECRET not in repr(chat(SECRET, model="m"))


def test_a_request_with_more_inputs_than_it_may_have_is_refused() -> None:
    check(OPENAI, embed(["a"] * 2_048))
    check(OPENAI, embed([1] * 3_000))  # type: ignore[list-item]

    with pytest.raises(InvalidRequest, match=r"has 2,049 inputs; openai takes 2,048 in one"):
        check(OPENAI, embed(["a"] * 2_049))
