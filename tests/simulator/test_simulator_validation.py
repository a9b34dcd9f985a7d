"""What is refused at once, and what fails later with a code and a line number."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.simulator.support import CHAT, MODEL, chat_body, chat_lines, jsonl, line


def errors_of(batch):
    return [(e.code, e.line, e.param) for e in batch.errors.data]


GOOD = line("good")
CASES = {
    "not json": (b'{"a":\n', "invalid_json_line", None),
    "an array": (b"[1, 2]\n", "invalid_json_line", None),
    "blank": (b"\n", "invalid_json_line", None),
    "byte order mark": (b"\xef\xbb\xbf" + jsonl([line("bom")]), "invalid_json_line", None),
    "no custom_id": (jsonl([{**GOOD, "custom_id": None}]), "missing_required_parameter", "custom_id"),
    "no method": (jsonl([{k: v for k, v in GOOD.items() if k != "method"}]), "missing_required_parameter", "method"),
    "no body": (jsonl([{k: v for k, v in GOOD.items() if k != "body"}]), "missing_required_parameter", "body"),
    "other url": (jsonl([line("u", url="/v1/embeddings")]), "invalid_url", "url"),
    "stream": (jsonl([line("s", chat_body(stream=True))]), "streaming_unsupported", "body.stream"),
    "no model": (jsonl([line("m", {"messages": []})]), "invalid_request", "body.model"),
    "no messages": (jsonl([line("m", {"model": MODEL})]), "invalid_request", "body.messages"),
    "unknown model": (jsonl([line("m", {**chat_body(), "model": "tide-9"})]), "model_not_found", "body.model"),
    "second model": (jsonl([line("m", {**chat_body(), "model": "gpt-5"})]), "mismatched_model", "body.model"),
    "same custom_id": (jsonl([GOOD]), "duplicate_custom_id", "custom_id"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_code_names_its_line(bench, case):
    data, code, param = CASES[case]
    batch = bench.run(jsonl([GOOD, line("also")]) + data + jsonl([line("last")]))
    assert batch.status == "failed"
    assert batch.failed_at
    assert errors_of(batch) == [(code, 3, param)]
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (0, 0, 0)
    assert bench.server.totals()["ran"] == 0


def test_many_errors_come_in_one_answer(bench):
    data = b"".join(case[0] for case in CASES.values())
    batch = bench.run(jsonl([GOOD]) + data)
    assert {code for code, _, _ in errors_of(batch)} == {code for _, code, _ in CASES.values()}
    lines = [number for _, number, _ in errors_of(batch)]
    assert lines == sorted(lines)
    assert len(lines) >= len(CASES)


def test_the_texts_are_the_services(bench):
    data = jsonl([line("a"), line("a"), line("b", {**chat_body(), "model": "tide-9"})])
    said = [e.message for e in bench.run(data).errors.data]
    assert said[0].startswith(
        "The custom_id 'a' for this request is a duplicate of another request."
    )
    assert said[1] == "The provided model 'tide-9' is not supported by the Batch API."


def test_an_unknown_file_fails_later_and_is_no_404(bench):
    batch = bench.client.batches.create(
        input_file_id="file-none", endpoint=CHAT, completion_window="24h"
    )
    assert batch.status == "validating"
    failed = bench.settled(batch)
    assert errors_of(failed) == [("invalid_request", None, "file_id")]
    assert failed.errors.data[0].message.startswith("Cannot find file file-none")


def test_a_file_of_blank_lines_is_empty(bench):
    assert errors_of(bench.run(b"\n\n\n")) == [("empty_file", None, None)]


@pytest.mark.batch_server(limits={"max_requests": 5, "max_embedding_inputs": 6})
def test_limits_of_a_file(bench):
    assert errors_of(bench.run(chat_lines(6))) == [("too_many_tasks", None, None)]
    assert bench.run(chat_lines(5)).status == "completed"
    body = {"model": "text-embedding-3-small", "input": ["a", "b", "c"]}
    data = jsonl([line(str(i), body, "/v1/embeddings") for i in range(3)])
    assert errors_of(bench.run(data, "/v1/embeddings")) == [("invalid_request", None, "body.input")]


@pytest.mark.batch_server(
    accounts=[{"name": "org-small", "tier": 1, "enqueued_tokens": {"gpt-5-mini": 600}}]
)
def test_enqueued_tokens_are_counted_by_model_until_a_batch_ends(bench, batch_clock):
    bench.server.turnaround(working="1h")
    first = bench.settled(bench.create(chat_lines(5)))
    assert first.status == "in_progress"
    second = bench.run(chat_lines(6))
    assert errors_of(second) == [("token_limit_exceeded", None, None)]
    said = second.errors.data[0].message
    assert "for gpt-5-mini in organization org-small. Limit: 600 enqueued tokens." in said
    other = jsonl([line("o", {**chat_body(), "model": "gpt-5"})])
    assert bench.settled(bench.create(other)).status == "in_progress"
    batch_clock.advance("2h")
    assert bench.settled(bench.create(chat_lines(5))).status == "in_progress"


@pytest.mark.batch_server(limits={"creations_per_hour": 2})
def test_creations_an_hour(bench, batch_clock):
    for _ in range(2):
        bench.run(chat_lines(1))
    with pytest.raises(openai.RateLimitError) as caught:
        bench.create(chat_lines(1))
    assert caught.value.response.headers["retry-after"]
    batch_clock.advance("61m")
    assert bench.run(chat_lines(1)).status == "completed"


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "endpoint": ({"endpoint": "/v1/fine-tunes"}, "endpoint", "invalid_value"),
    "window": ({"completion_window": "1h"}, "completion_window", "invalid_value"),
    "endpoint type": ({"endpoint": 5}, "endpoint", "invalid_type"),
    "no file": ({"input_file_id": None}, "input_file_id", "missing_required_parameter"),
    "metadata type": ({"metadata": "x"}, "metadata", "invalid_type"),
    "metadata value": ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
    "metadata size": ({"metadata": {str(i): "x" for i in range(17)}}, "metadata", "invalid_value"),
    "metadata key": ({"metadata": {"k" * 65: "x"}}, "metadata", "invalid_value"),
    "metadata length": ({"metadata": {"k": "x" * 513}}, "metadata.k", "invalid_value"),
    "life": ({"output_expires_after": {"anchor": "created_at", "seconds": 5}}, "output_expires_after.seconds", "invalid_value"),
    "anchor": ({"output_expires_after": {"anchor": "x", "seconds": 3600}}, "output_expires_after.anchor", "invalid_value"),
    "unknown": ({"window": "24h"}, "window", "unknown_parameter"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_create_refuses_at_once(batch_client, case):
    change, param, code = REFUSED[case]
    body = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h", **change}
    body = {k: v for k, v in body.items() if v is not None}
    with pytest.raises(openai.BadRequestError) as caught:
        batch_client.post("/batches", cast_to=object, body=body)
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.batch_server(limits={"max_bytes": 2000})
def test_uploads_refused_at_once(bench):
    create = bench.client.files.create
    for name, data, said in (
        ("a.jsonl", b"", "File is empty"),
        ("a.jsonl", b"x" * 2001, "File is too large"),
        ("a.txt", b"{}", r"Must be \.jsonl"),
        ("a.jsonl", b"\x00\x01", "not UTF-8"),
    ):
        with pytest.raises(openai.BadRequestError, match=said):
            create(file=(name, data), purpose="batch")
    with pytest.raises(openai.BadRequestError) as caught:
        create(file=("a.jsonl", b"{}"), purpose="batches")
    assert caught.value.param == "purpose"
    with pytest.raises(openai.BadRequestError, match=r"expires_after\.seconds"):
        create(
            file=("a.jsonl", b"{}"),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 1},
        )
    assert bench.client.files.list().data == []


def test_nothing_is_left_of_a_refused_upload(bench, tmp_path):
    with pytest.raises(openai.BadRequestError):
        bench.upload(b"")
    left = [p.name for p in (tmp_path / "batch-server" / "files").iterdir()]
    assert left == []


def test_unknown_urls_and_methods_are_json_errors(batch_client):
    with pytest.raises(openai.NotFoundError, match="Invalid URL"):
        batch_client.get("/nothing", cast_to=object)
    with pytest.raises(openai.APIStatusError) as caught:
        batch_client.delete("/batches", cast_to=object)
    assert caught.value.status_code == 405
    with pytest.raises(openai.BadRequestError, match="could not parse the JSON"):
        batch_client.post("/batches", cast_to=object, content=b"{")
