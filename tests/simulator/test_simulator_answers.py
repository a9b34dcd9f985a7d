"""The built-in answers are work on the text that is asked about."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.simulator.answers import BuiltIn, body_hash
from lowtide.simulator.answers.embeddings import vector
from lowtide.simulator.answers.schema import conforming
from lowtide.simulator.answers.text import sentences, summary
from tests.simulator.support import MODEL, TEXT, chat_body

ANSWER = BuiltIn(("*",))


def chat(prompt: str, system: str | None = None, **more: Any) -> str:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    body = {"model": MODEL, "messages": messages, **more}
    made = ANSWER.answer("/v1/chat/completions", body, 0.0)
    assert made.status == 200, made.body
    return str(made.body["choices"][0]["message"]["content"])


def test_a_summary_is_made_of_the_texts_own_sentences_within_its_length():
    checked = 0
    for package in metadata.distributions():
        text = str(package.metadata.json.get("description", ""))
        if len(text) < 2000:
            continue
        made = chat(f"Summarise in at most 40 words:\n\n{text}")
        assert len(made.split()) <= 40
        rest = made
        for sentence in sentences(text[:6000]):
            rest = rest.removeprefix(sentence).lstrip()
        assert rest == "" or rest in re.sub(r"\s+", " ", text)
        checked += 1
    assert checked > 10


def test_the_words_that_occur_most_decide():
    last = "Tides move the sea and the sea moves the tides."
    text = f"I left early that day. Cheese is old and rather yellow. {last}"
    assert summary(text, 12) == last


@pytest.mark.parametrize(
    ("system", "prompt", "label"),
    [
        ("Choose one of these labels: billing, shipping, other", "My parcel was never delivered", "shipping"),
        ('Labels: ["positive", "negative"]', "I love it, it works great!", "positive"),
        ("Classify into one of the categories:\n- bug\n- feature request\n- question", "It crashes with an error", "bug"),
        ("Labels: alpha, beta, other", "nothing of this kind", "other"),
        (None, "Classify this mail. Labels: sports, politics\n\nThe parliament passed the law", "politics"),
    ],
)  # fmt: skip
def test_a_classification_gives_a_label_of_the_list(system, prompt, label):
    assert chat(prompt, system) == label


TICKET = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "mail": {"type": "string", "format": "email"},
        "kind": {"enum": ["bug", "feature"]},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 4},
        "zip": {"type": "string", "pattern": "^[A-Z]{2}-\\d{4}$"},
        "parent": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
    },
    "required": ["name", "age", "mail", "kind", "tags", "zip", "parent"],
    "additionalProperties": False,
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            },
            "required": ["next", "children"],
            "additionalProperties": False,
        }
    },
}
FACTS = "Name: Ada Hall\nAge: 47, mail ada@tide.org, lives in AB-1234. It crashes with an error."


def test_structured_output_conforms_and_takes_what_the_text_says():
    form = {
        "type": "json_schema",
        "json_schema": {"name": "ticket", "strict": True, "schema": TICKET},
    }
    made = orjson.loads(chat(FACTS, "Extract the ticket.", response_format=form))
    jsonschema_rs.validate(TICKET, made)
    assert (made["name"], made["age"], made["mail"]) == ("Ada Hall", 47, "ada@tide.org")
    assert (made["kind"], made["zip"]) == ("bug", "AA-0000")
    body = {
        "model": MODEL,
        "input": FACTS,
        "text": {"format": {"type": "json_schema", "name": "t", "schema": TICKET}},
    }
    answer = ANSWER.answer("/v1/responses", body, 0.0).body
    jsonschema_rs.validate(TICKET, orjson.loads(answer["output"][0]["content"][0]["text"]))


LEAVES = st.one_of(
    st.builds(lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more}, st.integers(-50, 50), st.integers(0, 50)),
    st.builds(lambda low, step: {"type": "integer", "minimum": low, "multipleOf": step}, st.integers(-50, 50), st.integers(1, 9)),
    st.builds(lambda low, more: {"type": "number", "minimum": low, "maximum": low + more}, st.floats(-5, 5), st.floats(0, 5)),
    st.builds(lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more}, st.integers(0, 9), st.integers(0, 9)),
    st.sampled_from(["date", "date-time", "email", "uri", "uuid", "ipv4"]).map(lambda f: {"type": "string", "format": f}),
    st.sampled_from([r"^\d{3}$", r"^[a-f0-9]{8}$", "^(red|blue)$", r"^\w+@x$", "^[^a]b?c+$"]).map(lambda p: {"type": "string", "pattern": p}),
    st.lists(st.one_of(st.text(max_size=5), st.integers(-99, 99)), min_size=1, max_size=4).map(lambda e: {"enum": e}),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"const": 7}, {"type": ["string", "null"]}]),
)  # fmt: skip


def _object(properties):
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(st.text("abcdefgh_", min_size=1, max_size=6), inner, max_size=4).map(_object),
        st.builds(
            lambda items, low, more: {"type": "array", "items": items, "minItems": low, "maxItems": low + more},
            inner, st.integers(0, 3), st.integers(0, 3),
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"anyOf": some}),
    ),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    schema=SCHEMAS,
    text=st.sampled_from([FACTS, TEXT, "", "7 of 9\n\n\u2028 -3.5 2024-05-06 http://a.b/c"]),
)
def test_any_schema_is_conformed_to(schema, text):
    jsonschema_rs.validate(schema, orjson.loads(orjson.dumps(conforming(schema, text))))


@given(st.text(max_size=200), st.sampled_from([1, 64, 1536]))
def test_vectors_are_of_length_one_and_always_the_same(text, size):
    made = vector(text, size)
    assert len(made) == size
    assert sum(x * x for x in made) == pytest.approx(1.0)
    assert made == vector(text, size)


def test_texts_with_words_in_common_are_near():
    def near(a, b):
        return sum(x * y for x, y in zip(vector(a, 512), vector(b, 512), strict=True))

    assert near("the tide rises", "a rising tide rises") > near(
        "the tide rises", "old cheese smells"
    )


def test_a_token_limit_cuts_and_says_so():
    body = chat_body(max_completion_tokens=3)
    choice = ANSWER.answer("/v1/chat/completions", body, 0.0).body["choices"][0]
    assert choice["finish_reason"] == "length"
    assert len(choice["message"]["content"]) <= 12


def test_a_demanded_tool_is_called_with_fitting_arguments():
    tool = {"type": "function", "function": {"name": "book", "parameters": TICKET}}
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": FACTS}],
        "tools": [tool],
        "tool_choice": "required",
    }
    message = ANSWER.answer("/v1/chat/completions", body, 0.0).body["choices"][0]["message"]
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "book"
    jsonschema_rs.validate(TICKET, orjson.loads(call["function"]["arguments"]))


def test_moderation_flags_what_it_should():
    made = ANSWER.answer("/v1/moderations", {"input": ["I will kill you", "a nice day"]}, 0.0)
    flagged = [result["flagged"] for result in made.body["results"]]
    assert flagged == [True, False]
    assert made.body["results"][0]["categories"]["violence"]


WRONG: list[tuple[str, dict[str, Any], str | None]] = [
    ("/v1/chat/completions", {"model": MODEL}, "messages"),
    ("/v1/chat/completions", {"model": MODEL, "messages": []}, "messages"),
    ("/v1/chat/completions", {"messages": []}, "model"),
    ("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "king", "content": ""}]}, "messages[0].role"),
    ("/v1/chat/completions", chat_body(response_format={"type": "xml"}), "response_format.type"),
    ("/v1/chat/completions", chat_body(n=0), "n"),
    ("/v1/responses", {"model": MODEL}, "input"),
    ("/v1/responses", {"model": MODEL, "input": 5}, "input"),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": []}, "input"),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "a", "dimensions": 9999}, "dimensions"),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "a", "encoding_format": "x"}, "encoding_format"),
    ("/v1/completions", {"model": "davinci-002"}, "prompt"),
    ("/v1/moderations", {"model": "omni-moderation-latest", "input": 5}, "input"),
    ("/v1/images/generations", {"model": "gpt-image-1"}, "prompt"),
]  # fmt: skip


@pytest.mark.parametrize(("endpoint", "body", "param"), WRONG)
def test_what_an_endpoint_refuses(endpoint, body, param):
    made = ANSWER.answer(endpoint, body, 0.0)
    assert made.status == 400
    assert made.body["error"]["param"] == param


def test_a_hash_is_of_the_content_and_not_of_its_spelling():
    assert body_hash({"a": 1, "b": [2]}) == body_hash({"b": [2], "a": 1})
    assert body_hash({"a": 1}) != body_hash({"a": 2})
