"""Each fault, met by a stock client that does nothing about it."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

import httpx2
import openai
import pytest

from lowtide.simulator.fault_kinds import KINDS
from tests.simulator.support import Bench, chat_lines, jsonl, line, rows


def batches_made(bench: Bench) -> int:
    return len(bench.client.batches.list().data)


# ---- single HTTP requests
def test_refuse(bench):
    bench.server.add_fault("refuse", count=1)
    with pytest.raises(openai.APIConnectionError):
        bench.client.batches.list()
    assert bench.client.batches.list().data == []


def test_rate_limit_has_retry_after_which_the_stock_client_minds(bench):
    bench.server.add_fault("rate_limit", retry_after=3, count=1)
    with pytest.raises(openai.RateLimitError) as caught:
        bench.client.batches.list()
    assert caught.value.response.headers["retry-after"] == "3"
    bench.server.add_fault("rate_limit", retry_after=0, count=2)
    assert bench.client.with_options(max_retries=2).batches.list().data == []


def test_server_error_before_anything_is_done(bench):
    bench.server.add_fault("server_error", match="^POST /v1/batches$", status=503)
    with pytest.raises(openai.InternalServerError) as caught:
        bench.create(chat_lines(1))
    assert caught.value.status_code == 503
    assert batches_made(bench) == 0


def test_error_after_makes_a_retrying_client_pay_twice(bench):
    bench.server.add_fault("error_after", count=1)
    with pytest.raises(openai.InternalServerError) as caught:
        bench.create(chat_lines(2))
    assert caught.value.status_code == 502
    assert batches_made(bench) == 1
    bench.server.add_fault("error_after", count=1)
    eager = bench.client.with_options(max_retries=1)
    Bench(bench.server, eager).create(jsonl([line("x")]))
    bench.server.settle()
    assert batches_made(bench) == 3
    assert bench.server.totals()["billed_twice"] == 1


def test_cut_before_does_nothing(bench):
    bench.server.add_fault("cut_before", match="^POST /v1/batches$", count=1)
    with pytest.raises(openai.APIConnectionError):
        bench.create(chat_lines(1))
    assert batches_made(bench) == 0


def test_cut_after_has_done_it(bench):
    bench.server.add_fault("cut_after", count=1)
    with pytest.raises(openai.APIConnectionError):
        bench.create(chat_lines(1))
    assert batches_made(bench) == 1


def test_cut_middle_is_no_openai_error(bench):
    batch = bench.run(chat_lines(3000))
    bench.server.add_fault("cut_middle", count=1)
    size, got = bench.client.files.retrieve(batch.output_file_id).bytes, bytearray()

    def download():
        with bench.client.files.with_streaming_response.content(batch.output_file_id) as answer:
            for chunk in answer.iter_bytes():
                got.extend(chunk)

    with pytest.raises(httpx2.RemoteProtocolError):
        download()
    assert len(got) == size // 2
    got.clear()
    download()
    assert len(got) == size


def test_slow_bytes_run_into_a_timeout(bench):
    batch = bench.run(chat_lines(50))
    bench.server.add_fault("slow", match="/content$", delay="30s")
    with pytest.raises(openai.APITimeoutError):
        bench.client.with_options(timeout=0.2).files.content(batch.output_file_id)


def test_slow_bytes_arrive_whole(bench):
    batch = bench.run(chat_lines(5))
    whole = bench.content(batch.output_file_id)
    bench.server.add_fault("slow", match="/content$", bytes_per_second=len(whole) * 5)
    began = time.monotonic()
    assert bench.content(batch.output_file_id) == whole
    assert time.monotonic() - began > 0.1


def test_truncated_content_looks_fine(bench):
    batch = bench.run(chat_lines(20))
    size = bench.client.files.retrieve(batch.output_file_id).bytes
    bench.server.add_fault("truncate", share=0.3, count=1)
    assert len(bench.content(batch.output_file_id)) == int(size * 0.3)
    assert len(bench.content(batch.output_file_id)) == size


def test_content_missing_for_a_while(bench):
    batch = bench.run(chat_lines(2))
    bench.server.add_fault("content_missing", count=2)
    for _ in range(2):
        with pytest.raises(openai.NotFoundError):
            bench.content(batch.output_file_id)
    assert len(bench.rows(batch.output_file_id)) == 2


def test_insufficient_quota(bench):
    bench.server.add_fault("insufficient_quota")
    with pytest.raises(openai.RateLimitError) as caught:
        bench.create(chat_lines(1))
    assert caught.value.code == "insufficient_quota"


@pytest.mark.parametrize("status", [400, 403])
def test_billing_limit_at_create(bench, status):
    bench.server.add_fault("billing_limit", status=status, count=1)
    with pytest.raises(openai.APIStatusError) as caught:
        bench.create(chat_lines(1))
    assert (caught.value.status_code, caught.value.code) == (status, "billing_hard_limit_reached")
    assert batches_made(bench) == 0


def test_cut_connections_are_no_errors_of_the_server(bench, caplog):
    batch = bench.run(chat_lines(20))
    for kind in ("refuse", "cut_before", "cut_after", "cut_middle", "truncate"):
        bench.server.add_fault(kind, match="", count=1)
        with suppress(openai.APIConnectionError, httpx2.HTTPError, json.JSONDecodeError):
            bench.client.batches.retrieve(batch.id)
    assert [rule["hits"] for rule in bench.server.faults()] == [1] * 5
    assert caplog.text == ""


def test_a_defect_of_the_server_is_a_500_in_the_services_shape(bench, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError

    monkeypatch.setattr(bench.server.world.store, "batch", broken)
    with pytest.raises(openai.InternalServerError) as caught:
        bench.client.batches.retrieve("batch_1")
    assert caught.value.type == "server_error"


# ---- whole batches
def test_billing_limit_at_validation(bench):
    bench.server.add_fault("billing_limit", where="validation")
    batch = bench.run(chat_lines(1))
    assert batch.status == "failed"
    assert [e.code for e in batch.errors.data] == ["billing_hard_limit_reached"]


def test_token_limit_with_nothing_in_progress(bench):
    bench.server.add_fault("token_limit", count=1)
    batch = bench.run(chat_lines(1))
    assert [e.code for e in batch.errors.data] == ["token_limit_exceeded"]
    assert bench.run(chat_lines(1)).status == "completed"


def test_stuck_stays_in_progress_beyond_its_window(bench, batch_clock):
    bench.server.add_fault("stuck", share=0.5)
    batch = bench.create(chat_lines(10))
    batch_clock.advance("3d")
    stuck = bench.client.batches.retrieve(batch.id)
    assert (stuck.status, stuck.request_counts.completed) == ("in_progress", 5)
    bench.client.batches.cancel(batch.id)
    ended = bench.settled(batch)
    assert ended.status == "cancelled"
    assert len(bench.rows(ended.output_file_id)) == 5


def test_expire_after_a_while(bench, batch_clock):
    bench.server.add_fault("expire", after="10s", share=0.2)
    batch = bench.create(chat_lines(10))
    batch_clock.advance("11s")
    ended = bench.client.batches.retrieve(batch.id)
    assert ended.status == "expired"
    assert ended.expired_at == batch.created_at + 10
    assert len(bench.rows(ended.output_file_id)) == 2
    assert len(bench.rows(ended.error_file_id)) == 8


def test_late_expiry(bench, batch_clock):
    bench.server.add_fault("late_expiry", seconds="30m")
    batch = bench.create(chat_lines(4))
    batch_clock.advance("24h")
    assert bench.client.batches.retrieve(batch.id).status == "in_progress"
    batch_clock.advance("31m")
    ended = bench.client.batches.retrieve(batch.id)
    assert ended.status == "expired"
    assert ended.expired_at == ended.expires_at + 1800


def test_long_validating_and_finalizing(bench, batch_clock):
    bench.server.add_fault("long_validating", seconds="1h")
    bench.server.add_fault("long_finalizing", seconds="2h")
    batch = bench.create(chat_lines(2))
    seen = []
    for step in ("30m", "1h", "2h"):
        batch_clock.advance(step)
        now = bench.client.batches.retrieve(batch.id)
        seen.append((now.status, now.request_counts.completed))
    assert seen == [("validating", 0), ("finalizing", 2), ("completed", 2)]


def test_unknown_status_is_a_plain_str_for_the_client(bench, batch_clock):
    bench.server.turnaround(working="1h")
    bench.server.add_fault("unknown_status", status="scheduling")
    batch = bench.create(chat_lines(1))
    assert bench.settled(batch).status == "scheduling"
    batch_clock.advance("2h")
    assert bench.client.batches.retrieve(batch.id).status == "completed"


def test_omit_nulls(bench):
    bench.server.add_fault("omit_nulls")
    batch = bench.run(chat_lines(1))
    raw = bench.client.batches.with_raw_response.retrieve(batch.id).text
    assert None not in json.loads(raw).values()
    assert "error_file_id" not in json.loads(raw)
    assert batch.error_file_id is None


def test_empty_ids(bench):
    bench.server.add_fault("empty_ids")
    assert bench.create(chat_lines(1)).output_file_id == ""
    assert bench.run(chat_lines(1)).error_file_id == ""


def test_empty_error_file(bench):
    bench.server.add_fault("empty_error_file")
    batch = bench.run(chat_lines(1))
    assert bench.content(batch.error_file_id) == b""
    assert bench.client.files.retrieve(batch.error_file_id).bytes == 0


def test_iso_timestamps(bench):
    bench.server.add_fault("iso_timestamps")
    created = bench.run(chat_lines(1)).created_at
    assert isinstance(created, str)
    assert created.endswith("Z")


def test_unfinished_lines_in_neither_file(bench, batch_clock):
    bench.server.add_fault("expire", share=0.5, after="1m")
    bench.server.add_fault("unfinished_missing")
    batch = bench.create(chat_lines(10))
    batch_clock.advance("2m")
    ended = bench.client.batches.retrieve(batch.id)
    assert ended.error_file_id is None
    assert len(bench.rows(ended.output_file_id)) == 5


def test_crlf_and_no_final_newline(bench):
    bench.server.add_fault("crlf", count=1)
    batch = bench.run(chat_lines(3))
    content = bench.content(batch.output_file_id)
    assert content.count(b"\r\n") == 3
    assert len(rows(content)) == 3
    bench.server.add_fault("no_final_newline", count=1)
    batch = bench.run(chat_lines(3))
    content = bench.content(batch.output_file_id)
    assert content.endswith(b"}")
    assert len(rows(content)) == 3
    assert len(content) == bench.client.files.retrieve(batch.output_file_id).bytes


# ---- lines
@pytest.mark.parametrize("status", [400, 429, 500, 0])
def test_lines_with_an_http_status(bench, status):
    bench.server.add_fault("line_error", match="^bad$", status=status)
    batch = bench.run(jsonl([line("good"), line("bad")]))
    (row,) = bench.rows(batch.error_file_id)
    assert row["custom_id"] == "bad"
    assert row["error"] is None
    assert row["response"]["status_code"] == status
    if status:
        assert row["response"]["body"]["error"]["message"]
    totals = bench.server.totals()
    assert (totals["ran"], totals["billed"]) == (2, 1)


def test_lines_that_never_reached_http(bench):
    bench.server.add_fault("line_error", match="^bad$", code="request_timeout", message="Too late.")
    batch = bench.run(jsonl([line("good"), line("bad")]))
    (row,) = bench.rows(batch.error_file_id)
    assert row["response"] is None
    assert row["error"] == {"code": "request_timeout", "message": "Too late."}


def test_billing_limit_at_a_line(bench):
    bench.server.add_fault("billing_limit", where="line", match="^bad$")
    batch = bench.run(jsonl([line("good"), line("bad")]))
    (row,) = bench.rows(batch.error_file_id)
    assert row["response"]["body"]["error"]["code"] == "billing_hard_limit_reached"


def test_every_line_fails(bench):
    bench.server.add_fault("line_error", status=500)
    batch = bench.run(chat_lines(5))
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert batch.request_counts.failed == 5


def test_a_missing_line_is_paid_but_in_neither_file(bench):
    bench.server.add_fault("line_missing", count=1)
    batch = bench.run(chat_lines(3))
    assert batch.request_counts.completed == 3
    assert batch.error_file_id is None
    assert len(bench.rows(batch.output_file_id)) == 2
    assert bench.server.totals()["billed"] == 3


def test_a_line_twice(bench):
    bench.server.add_fault("line_duplicate", match="^r1$")
    batch = bench.run(chat_lines(3))
    ids = sorted(row["custom_id"] for row in bench.rows(batch.output_file_id))
    assert ids == ["r0", "r1", "r1", "r2"]
    assert bench.server.totals()["billed"] == 3


def test_a_line_that_nobody_sent(bench):
    bench.server.add_fault("line_unknown_id", count=1)
    batch = bench.run(chat_lines(3))
    ids = {row["custom_id"] for row in bench.rows(batch.output_file_id)}
    assert len(ids) == 4
    assert len(ids - {"r0", "r1", "r2"}) == 1


def test_separators_break_iter_lines_but_not_a_split_at_newlines(bench):
    bench.server.add_fault("separators", count=1)
    batch = bench.run(chat_lines(1))
    content = bench.content(batch.output_file_id)
    assert "\u2028" in content.decode()
    assert len(rows(content)) == 1
    with bench.client.files.with_streaming_response.content(batch.output_file_id) as answer:
        assert len(list(answer.iter_lines())) > 1


def test_answers_of_no_use_are_paid_for(bench):
    for name, kind in (("r0", "refusal"), ("r1", "filtered"), ("r2", "wrong_form")):
        bench.server.add_fault(kind, count=1, match=name)
    batch = bench.run(chat_lines(4))
    found = {
        row["custom_id"]: row["response"]["body"]["choices"][0]
        for row in rows(bench.content(batch.output_file_id))
    }
    assert found["r0"]["message"]["content"] is None
    assert "can't help" in found["r0"]["message"]["refusal"]
    assert found["r1"]["finish_reason"] == "content_filter"
    assert found["r2"]["message"]["content"].startswith("Sure!")
    assert found["r3"]["finish_reason"] == "stop"
    assert batch.request_counts.completed == 4


# ---- all of them
KNOWN_ELSEWHERE = {name for name in KINDS if name.startswith("webhook_")}


def test_every_kind_has_a_test_here_or_with_the_webhooks():
    source = Path(__file__).read_text()
    assert [k for k in KINDS if f'"{k}"' not in source and k not in KNOWN_ELSEWHERE] == []
