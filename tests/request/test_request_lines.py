"""A request as a line of a batch file and as a stored blob."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import threading
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.envelope import Body
from lowtide.errors import EnvelopeError, RequestTooLarge
from lowtide.lane import Lane
from lowtide.request import Call, Request, encode, head_of, lines_of, pack, to_call, unpack

LANE = Lane("default", "/v1/chat/completions", "gpt-5-mini")
TEXT = st.text(st.characters(codec="utf-8"))
REQUESTS = st.builds(
    Request,
    custom_id=TEXT,
    task_id=TEXT.filter(bool),
    task=TEXT,
    lane=st.just(LANE),
    body=st.dictionaries(TEXT, TEXT).map(orjson.dumps),
    envelope=st.binary(),
    tokens=st.integers(0, 2**31),
    deadline=st.none() | st.floats(0, 2**33),
)


@given(REQUESTS)
def test_a_line_is_one_line_of_json_with_the_body_as_it_is(request: Request):
    line = request.line()

    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert len(line) == request.line_size
    assert request.body in line
    assert orjson.loads(line) == {
        "custom_id": request.custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": orjson.loads(request.body),
    }


@given(TEXT)
def test_any_text_stays_on_its_line(text: str):
    lane, body, tokens = encode(to_call(text + "\u2028\n\r\x85", model="m"), account="a")
    request = Request("a", "a", "t", lane, body, b"", tokens)

    [only] = request.line().splitlines(keepends=False)[:1]
    assert request.line() == only + b"\n"
    assert orjson.loads(only)["body"]["messages"][0]["content"] == text + "\u2028\n\r\x85"


@given(REQUESTS)
def test_a_blob_gives_the_request_back(request: Request):
    assert unpack(request.custom_id, LANE, pack(request)) == request


def test_the_size_limit_counts_the_longest_custom_id():
    lane, body, tokens = encode(to_call("x", model="m"), account="a")
    longest = Request("c" * 64, "t", "t", lane, body, b"", tokens)

    with pytest.raises(RequestTooLarge):
        encode(
            Call(lane.endpoint, orjson.loads(body)), account="a", max_bytes=longest.line_size - 1
        )
    encode(Call(lane.endpoint, orjson.loads(body)), account="a", max_bytes=longest.line_size + 16)


@given(REQUESTS)
def test_a_blob_tells_its_head_and_its_line_without_the_rest(request: Request):
    blob = pack(request)
    head = head_of(request.custom_id, blob)

    assert (head.task_id, head.task) == (request.task_id, request.task)
    assert (head.tokens, head.deadline) == (request.tokens, request.deadline)
    assert b"".join(lines_of(LANE, [(request.custom_id, blob)])) == request.line()


@given(st.lists(REQUESTS, max_size=3))
def test_a_file_is_the_lines_of_its_blobs_one_after_the_other(requests: list[Request]):
    rows = [(request.custom_id, pack(request)) for request in requests]

    assert b"".join(lines_of(LANE, rows)) == b"".join(request.line() for request in requests)


def test_a_task_id_that_the_custom_id_holds_is_not_stored_again():
    own, other = (Request("abcd.0.0", name, "t", LANE, b"", b"", 1) for name in ("abcd", "else"))

    assert b"abcd" not in pack(own)
    assert b"else" in pack(other)


@pytest.mark.parametrize("blob", [b"", b"\x01abc", b"\xff"])
def test_a_blob_of_another_format_says_so(blob: bytes):
    with pytest.raises(EnvelopeError, match="this release reads 02 and 03"):
        unpack("a.0.0", LANE, blob)


@pytest.mark.parametrize(
    "damage",
    [
        lambda blob: blob[:-3],
        lambda blob: blob[:1],
        lambda blob: blob[:1] + b"not zstd",
        lambda blob: blob[:12] + bytes([blob[12] ^ 255]) + blob[13:],
    ],
)
def test_a_damaged_blob_says_so(damage: Any):
    blob = pack(Request("a.0.0", "a", "t", LANE, b'{"model":"m"}', b"e", 1))

    with pytest.raises(EnvelopeError, match=r"a\.0\.0 is damaged"):
        unpack("a.0.0", LANE, damage(blob))


def test_a_prompt_that_the_envelope_repeats_is_stored_once():
    descriptions: list[Any] = [found.metadata for found in importlib.metadata.distributions()]
    prose = max((str(each.get_payload()) for each in descriptions), key=len)[:4_000]
    assert len(prose) == 4_000
    lane, body, tokens = encode(to_call(f"Summarise:\n\n{prose}", model="gpt-5-mini"), account="a")
    envelope = msgspec.msgpack.encode({"args": [prose], "id": "0" * 36})

    blob = pack(Request("a.0.0", "a", "tasks.summarize", lane, body, envelope, tokens))

    assert len(blob) < 0.6 * len(body)
    assert len(blob) < 0.3 * (len(body) + len(envelope))


@pytest.mark.parametrize(("size", "form"), [(0, 3), (16_000, 3), (17_000, 2), (1_000_000, 2)])
def test_only_a_short_request_is_stored_with_the_dictionary(size: int, form: int):
    request = Request("a.0.0", "a", "t", LANE, os.urandom(size), b"e", 1)

    blob = pack(request)

    assert blob[0] == form
    assert unpack("a.0.0", LANE, blob) == request


def test_what_every_request_says_is_not_stored_again():
    call = to_call("Is it raining?", model="gpt-5-mini")
    lane, body, tokens = encode(call, account="a")
    links: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    envelope = Body.of(["Is it raining?"], {}, links, "json").data

    blob = pack(Request("a.0.0", "a", "t", lane, body, envelope, tokens))

    assert len(blob) < 0.5 * (len(body) + len(envelope))


def test_threads_pack_and_unpack_at_once():
    sizes = (20, 2_000)  # with the dictionary, and too long for it
    bodies = [orjson.dumps({"n": n, "text": f"{n} " * sizes[n % 2] * 4}) for n in range(40)]
    found: dict[int, bytes] = {}

    def work(numbers: range) -> None:
        for n in numbers:
            blob = pack(Request("a", "a", "t", LANE, bodies[n], b"", 1))
            found[n] = unpack("a", LANE, blob).body

    threads = [threading.Thread(target=work, args=(range(k, 40, 4),)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [found[n] for n in range(40)] == bodies


def test_requests_and_answers_load_nothing_heavy():
    heavy = (
        "{'openai', 'httpx2', 'sqlmodel', 'sqlalchemy', 'pydantic', 'pydantic_settings', 'typer'}"
    )
    script = f"import sys, lowtide.request, lowtide.answer; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.stdout.strip() == "set()", done.stderr
