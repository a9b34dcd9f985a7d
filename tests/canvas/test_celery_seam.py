"""JSON is read and written as kombu does it, though by a faster parser where that is the same."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import uuid

import pytest
from celery import Celery
from celery.app.task import Context
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.message import Message
from kombu.serialization import prepare_accept_content, register
from kombu.utils import json as kombu_json

from lowtide import celery_seam
from lowtide.celery_seam import context_of, dump, parse

TEXTS = [
    "0", "-0", "-0.0", "1.0", "1E5", "0.1", "5e-324", "1e400", "-1e400", "NaN", "Infinity",
    "18446744073709551616", "123456789012345678901234567890", "12345678901234567890.5",
    '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"\u2028 \U0001f30a"', ' {"a": 1}\n', '{"a":1,"a":2}',
    '{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000007"}}',
    '{"__type__": "uuid", "__value__": 7, "more": 1}', "[" * 5000 + "]" * 5000, "null",
]  # fmt: skip
VALUES = [
    None, True, 1, 1.5, "text", [], {}, (1, [2]), {"a": {"b": [None]}}, 2**80, -(2**80), 1e16,
    math.inf, "\ud800", "\u2028 é \x00", {1: 2}, {"a": (1, 2)}, uuid.UUID(int=7),
    dt.datetime(2026, 1, 2, tzinfo=dt.UTC), decimal.Decimal("1.20"), b"\xff", [uuid.UUID(int=7)],
    {"when": dt.date(2026, 1, 2)},
]  # fmt: skip


def outcome(read, data):
    try:
        found = read(data)
    except (ValueError, RecursionError) as error:
        return type(error)
    return repr(found)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:20])
def test_json_is_read_as_kombu_reads_it(text: str) -> None:
    data = text.encode("utf-8")

    assert outcome(parse, data) == outcome(kombu_json.loads, data)


@pytest.mark.parametrize("data", [b"", b"[1,]", b"\xff", b'"\xff"', b"\xef\xbb\xbf1", b"{'a': 1}"])
def test_what_is_no_json_is_refused_as_kombu_does(data: bytes) -> None:
    refused = outcome(parse, data)

    assert isinstance(refused, type)
    assert refused is outcome(kombu_json.loads, data)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_is_written_is_read_by_kombu_as_its_own(value: object) -> None:
    content_type, encoding, data = dump(value, "json")

    assert (content_type, encoding) == celery_seam.JSON
    own = kombu_json.loads(kombu_json.dumps(value))
    assert repr(kombu_json.loads(data)) == repr(own)
    assert repr(parse(data)) == repr(own)


def test_usual_bodies_take_the_faster_parser(monkeypatch) -> None:
    def dear(*_args, **_options):
        raise AssertionError("kombu's own was asked")

    monkeypatch.setattr(celery_seam, "_decoder", type("_", (), {"decode": dear}))
    monkeypatch.setattr(celery_seam._kombu, "dumps", dear)

    _, _, data = dump((["a text", 1, 2.5], {"key": [{}]}, {"chord": None}), "json")

    assert parse(data) == [["a text", 1, 2.5], {"key": [{}]}, {"chord": None}]


def test_a_messages_body_is_decoded_once() -> None:
    options = {"content_type": "application/json", "content_encoding": "utf-8"}
    message = Message(b"[[1],{},{}]", accept=prepare_accept_content(["json"]), **options)

    found = celery_seam.payload(message)

    assert found == [[1], {}, {}]
    assert message.payload is found
    unreadable = Message(b"[[1],{}", accept=prepare_accept_content(["json"]), **options)
    with pytest.raises(DecodeError):
        celery_seam.payload(unreadable)
    refused = Message(b"[[1],{},{}]", accept=prepare_accept_content(["yaml"]), **options)
    with pytest.raises(ContentDisallowed):
        celery_seam.payload(refused)


def test_a_serializer_in_the_place_of_kombus_is_asked() -> None:
    app = Celery("own", set_as_current=False)
    options = {"content_type": "application/json", "content_encoding": "utf-8"}
    register("json", lambda _: "written", lambda _: "read", *options.values())
    try:
        assert dump("value", "json")[2] == b"written"
        assert celery_seam.load(app, b"1", *options.values()) == "read"
        message = Message(b"1", accept=prepare_accept_content(["json"]), **options)
        assert celery_seam.payload(message) == "read"
    finally:
        register("json", kombu_json.dumps, kombu_json.loads, *options.values())
    assert dump(1, "json")[2] == b"1"


@pytest.mark.parametrize(
    "more",
    [
        {}, {"tenant": "acme", "lang": "py", "argsrepr": "(1,)", "compression": None},
        {"headers": {"tenant": "acme"}}, {"headers": None, "x-own": 1}, {"timelimit": [3, 2]},
        {"timelimit": None, "chord": {"task": "t"}, "_children": []}, {"called_directly": True},
    ],
)  # fmt: skip
def test_a_context_is_what_celery_makes_of_the_call(more: dict[str, object]) -> None:
    request = {"id": "i", "task": "t", "args": ["a"], "kwargs": {}, "retries": 0, **more}

    for _ in range(2):  # the names of a call are known the second time
        made, celerys = context_of(request), Context(request, called_directly=False)
        assert vars(made) == vars(celerys)
        assert list(made.headers or ()) == list(celerys.headers or ())
