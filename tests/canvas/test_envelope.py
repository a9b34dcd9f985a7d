"""An envelope gives back exactly what the message held."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import uuid
from typing import Any

import msgspec
import pytest
from celery import Celery
from celery.app.task import Context
from hypothesis import given
from hypothesis import strategies as st

from lowtide import carried
from lowtide.envelope import Body, Envelope, earlier, record, unpack
from lowtide.errors import EnvelopeError, RequestExpired
from lowtide.ids import MAX_LENGTH, custom_id, run_number
from lowtide.lane import Lane
from lowtide.request import Request, pack

APP = Celery("envelopes", broker="memory://", set_as_current=False)
EMPTY: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def context(**fields: Any) -> Context:
    known = {"id": "t-1", "task": "t", "root_id": "t-1", "correlation_id": "t-1", "retries": 0}
    return Context({**known, "delivery_info": {"exchange": "", "routing_key": "q"}, **fields})


def through(body: Body, **fields: Any) -> dict[str, Any]:
    """What the tracer gets after the envelope was stored and read."""
    packed = Envelope.seal(context(**fields), body).pack()
    return unpack(packed).load(APP, "t-1", "t", "w@host")


def test_arguments_of_every_type_that_kombu_knows() -> None:
    args = [
        dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC),
        dt.date(2026, 1, 2),
        dt.time(3, 4, 5),
        decimal.Decimal("1.2300"),
        uuid.UUID(int=7),
        b"\x00\xff",
        "\u2028 \U0001f30a \x00",
        2**80,
        {"nested": [None, True, 1.5]},
    ]

    request = through(Body.of(args, {"key": args}, EMPTY, "json"))

    assert request["args"] == args
    assert request["kwargs"] == {"key": args}
    assert [type(value) for value in request["args"]] == [type(value) for value in args]


def test_the_body_is_kept_byte_for_byte() -> None:
    raw = b'[["a" ],{ },{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'

    packed = Envelope.seal(context(), Body(raw, "application/json", "utf-8")).pack()

    assert unpack(packed).body == raw
    assert unpack(packed).content is None


def test_other_serializers_need_the_app_to_accept_them() -> None:
    packed = Envelope.seal(context(), Body.of([1], {}, EMPTY, "yaml")).pack()
    yaml = Celery("yaml", set_as_current=False)
    yaml.conf.accept_content = ["yaml"]

    assert unpack(packed).load(yaml, "t-1", "t", "")["args"] == [1]
    with pytest.raises(Exception, match="yaml"):
        unpack(packed).load(APP, "t-1", "t", "")


def test_headers_links_and_stamps_come_back() -> None:
    links = {"callbacks": [{"task": "x"}], "errbacks": [], "chain": None, "chord": {"task": "c"}}
    fields: dict[str, Any] = {
        "root_id": "r", "parent_id": "p", "group": "g", "group_index": 0, "ignore_result": False,
        "replaced_task_nesting": 2, "shadow": "shade", "origin": "gen@host", "retries": 3,
        "reply_to": "queue", "correlation_id": "other", "timelimit": [10, None],
        "stamped_headers": ["tenant"], "stamps": {"tenant": ["acme"]},
        "delivery_info": {"exchange": "ex", "routing_key": "key", "priority": 0, "redelivered": True},
        "trace_id": "abc", "number": 5,
    }  # fmt: skip

    request = through(Body.of([], {}, links, "json"), **fields)

    again = Context(request)
    assert {key: getattr(again, key) for key in fields if key != "delivery_info"} == {
        key: value for key, value in fields.items() if key != "delivery_info"
    }
    assert again.delivery_info == {**fields["delivery_info"], "redelivered": False}
    assert again.headers == {"trace_id": "abc", "number": 5}
    assert (again.callbacks, again.chord) == ([{"task": "x"}], {"task": "c"})
    assert (again.id, again.hostname) == ("t-1", "w@host")


@pytest.mark.parametrize(
    "value", [2**70, -(2**63) - 1, decimal.Decimal("1.50"), None, ["a", {"b": 1}]]
)
def test_headers_keep_their_types(value: object) -> None:
    request = through(Body.of([], {}, EMPTY, "json"), own=value, other="x")

    assert Context(request).headers == {"own": value, "other": "x"}


def test_headers_within_a_header_hide_none_of_lowtides_own() -> None:
    nested = {"sentry-trace": "s1"}
    known = {"lowtide_tenant": "acme", "sentry-trace": "s1", "headers": nested}

    request = through(Body.of([], {}, EMPTY, "json"), **known)

    assert Context(request).headers == nested
    assert carried.headers_of(Context(request)) == {"lowtide_tenant": "acme", "headers": nested}
    # Without such a header they are as Celery collects them.
    del known["headers"]
    request = through(Body.of([], {}, EMPTY, "json"), **known)
    assert carried.headers_of(Context(request)) == Context(request).headers == known


def test_what_is_not_said_stays_unsaid() -> None:
    request = through(Body.of([], {}, EMPTY, "json"))

    assert "ignore_result" not in request
    assert "expires" not in request
    assert Context(request).headers is None
    assert (request["root_id"], request["correlation_id"]) == ("t-1", "t-1")


def test_history_keeps_answers_and_errors() -> None:
    envelope = Envelope.seal(context(), Body.of([], {}, EMPTY, "json"))
    answer = ("/v1/chat/completions", {"choices": [{"index": 0}], "n": 1.5})
    error = RequestExpired("too late", {"batch": "b_1", "attempts": 3})
    lane = Lane("default", "/v1/chat/completions", "m")
    blobs = []
    for body, ended in ((b"1", answer), (b"2", error), (b"3", answer)):
        # That an answer was of no use does not change what was asked.
        for envelope.invalid, line in (([], body), ([{"is": "bad"}], b"again")):
            blobs.append(pack(Request("t-1.0.2", "t-1", "t", lane, line, envelope.pack(), 1)))
        envelope.history = [*envelope.history, record(ended)]

    known = earlier(blobs)

    assert known.steps == 2
    assert known.outcomes[0, b"1"] == answer
    assert list(known.outcomes) == [(0, b"1"), (1, b"2")]
    second = known.outcomes[1, b"2"]
    assert isinstance(second, RequestExpired)
    assert (second.message, second.details) == ("too late", {"batch": "b_1", "attempts": 3})


@pytest.mark.parametrize("data", [b"", b"\x02\x90", b"\xff", bytes(100)])
def test_envelopes_of_other_versions_are_refused_by_number(data: bytes) -> None:
    with pytest.raises(EnvelopeError, match="this release reads version 1") as caught:
        unpack(data)
    assert caught.value.code == "version"


@given(st.binary(max_size=60))
def test_damaged_envelopes_are_refused(data: bytes) -> None:
    packed = Envelope.seal(context(), Body.of(["x"], {}, EMPTY, "json")).pack()
    for damaged in (b"\x01" + data, packed[: len(data)], packed[:20] + data):
        with contextlib.suppress(EnvelopeError):
            assert isinstance(unpack(damaged), Envelope)


def test_a_later_release_may_add_fields() -> None:
    packed = Envelope.seal(context(), Body.of(["x"], {}, EMPTY, "json")).pack()
    longer = [*msgspec.msgpack.decode(packed[1:]), "a field of tomorrow"]
    shorter = msgspec.msgpack.decode(packed[1:])[:2]

    assert unpack(packed[:1] + msgspec.msgpack.encode(longer)) == unpack(packed)
    assert unpack(packed[:1] + msgspec.msgpack.encode(shorter)).body == unpack(packed).body


@pytest.mark.parametrize("task_id", ["t", "x" * 60, "ü", "a" * 200, str(uuid.UUID(int=0))])
def test_custom_ids_fit_the_provider_and_differ(task_id: str) -> None:
    made = {custom_id(task_id, run_number(retries, nesting), step)
            for retries in range(3) for nesting in range(3) for step in range(3)}  # fmt: skip

    assert len(made) == 27
    assert all(len(one) <= MAX_LENGTH and one.isascii() for one in made)


def test_a_stored_envelope_is_small() -> None:
    args = ["text of the prompt"]
    packed = Envelope.seal(context(), Body.of(args, {}, EMPTY, "json")).pack()

    assert len(packed) < 160
