"""Files and batches as a stock client meets them when nothing goes wrong."""

from __future__ import annotations

import base64
import struct

import openai
import pytest

from lowtide.simulator import SimulatorServer, SimulatorSettings
from lowtide.simulator.settings import from_mapping
from tests.simulator.support import (
    CHAT,
    MODEL,
    TEXT,
    Bench,
    chat_body,
    chat_lines,
    counts,
    jsonl,
    line,
)

BODIES = {
    CHAT: chat_body(),
    "/v1/responses": {"model": MODEL, "input": f"Summarise:\n\n{TEXT}"},
    "/v1/embeddings": {"model": "text-embedding-3-small", "input": [TEXT, "tide"]},
    "/v1/completions": {"model": "davinci-002", "prompt": TEXT},
    "/v1/moderations": {"model": "omni-moderation-latest", "input": TEXT},
    "/v1/images/generations": {"model": "gpt-image-1", "prompt": "a tide"},
    "/v1/images/edits": {"model": "gpt-image-1", "prompt": "a tide", "image": "file-x"},
    "/v1/videos": {"model": "sora-2", "prompt": "a tide"},
}


@pytest.mark.parametrize("endpoint", BODIES)
def test_every_endpoint_runs_as_a_batch(bench, endpoint):
    body = BODIES[endpoint]
    batch = bench.run(jsonl([line(f"r{i}", body, endpoint) for i in range(3)]), endpoint)
    assert batch.status == "completed"
    assert (batch.request_counts.total, batch.request_counts.completed) == (3, 3)
    assert batch.error_file_id is None
    assert batch.model.startswith(body["model"].removesuffix("-latest"))
    answers = bench.rows(batch.output_file_id)
    assert {row["custom_id"] for row in answers} == {"r0", "r1", "r2"}
    assert all(row["response"]["status_code"] == 200 and row["error"] is None for row in answers)


def test_every_synchronous_endpoint_answers_a_stock_client(batch_client, batch_server):
    chat = batch_client.chat.completions.create(**BODIES[CHAT])
    assert chat.choices[0].message.content in TEXT
    assert (
        batch_client.responses.create(**BODIES["/v1/responses"]).output_text.split(".")[0] in TEXT
    )
    assert batch_client.completions.create(**BODIES["/v1/completions"]).choices[0].text
    assert not batch_client.moderations.create(**BODIES["/v1/moderations"]).results[0].flagged
    vectors = batch_client.embeddings.create(model="text-embedding-3-small", input="tide")
    assert len(vectors.data[0].embedding) == 1536
    picture = batch_client.images.generate(model="gpt-image-1", prompt="a tide")
    assert base64.b64decode(picture.data[0].b64_json).startswith(b"\x89PNG")
    assert batch_server.totals()["modes"]["sync"]["billed"] == 6


def test_counts_and_usage_add_up_and_the_order_is_not_the_files(bench):
    batch = bench.run(chat_lines(200))
    answers = bench.rows(batch.output_file_id)
    order = [row["custom_id"] for row in answers]
    assert sorted(order) == sorted(f"r{i}" for i in range(200))
    assert order != [f"r{i}" for i in range(200)]
    used = [row["response"]["body"]["usage"] for row in answers]
    assert batch.usage.input_tokens == sum(u["prompt_tokens"] for u in used)
    assert batch.usage.output_tokens == sum(u["completion_tokens"] for u in used)
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens


def test_the_same_seed_gives_the_same_order(tmp_path):
    orders = []
    for seed in (1, 1, 2):
        with (
            SimulatorServer(SimulatorSettings(seed=seed)) as server,
            openai.OpenAI(base_url=server.base_url, api_key="k") as client,
        ):
            bench = Bench(server, client)
            out = bench.run(chat_lines(30)).output_file_id
            orders.append([row["custom_id"] for row in bench.rows(out)])
    assert orders[0] == orders[1] != orders[2]


def test_create_answers_validating_and_echoes_what_was_sent(bench):
    batch = bench.create(chat_lines(1), metadata={"lowtide": "b-1"})
    assert batch.status == "validating"
    assert batch.metadata == {"lowtide": "b-1"}
    assert batch.expires_at == batch.created_at + 86400


def test_an_answer_that_the_endpoint_refuses_goes_to_the_error_file(bench):
    bad = chat_body(temperature=9)
    batch = bench.run(jsonl([line("good"), line("bad", bad)]))
    assert batch.status == "completed"
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)
    (row,) = bench.rows(batch.error_file_id)
    assert row["custom_id"] == "bad"
    assert row["error"] is None
    assert row["response"]["status_code"] == 400
    assert row["response"]["body"]["error"]["param"] == "temperature"


def test_a_batch_whose_every_line_failed_is_completed_without_output(bench):
    batch = bench.run(jsonl([line(f"r{i}", chat_body(temperature=9)) for i in range(3)]))
    assert batch.status == "completed"
    assert batch.output_file_id is None
    assert len(bench.rows(batch.error_file_id)) == 3


def test_cancel_keeps_what_is_done_and_names_the_rest(bench, batch_clock):
    bench.server.turnaround(working="100m", cancelling="5m")
    batch = bench.create(chat_lines(100))
    batch_clock.advance("25m")
    assert bench.client.batches.retrieve(batch.id).request_counts.completed == 25
    wish = bench.client.batches.cancel(batch.id)
    assert wish.status == "cancelling"
    assert wish.cancelling_at
    assert wish.output_file_id is None
    batch_clock.advance("6m")
    ended = bench.client.batches.retrieve(batch.id)
    assert ended.status == "cancelled"
    assert ended.cancelled_at == ended.cancelling_at + 300
    assert len(bench.rows(ended.output_file_id)) == 25
    rest = bench.rows(ended.error_file_id)
    assert len(rest) == 75
    assert {(row["error"]["code"], row["response"]) for row in rest} == {("batch_cancelled", None)}
    assert counts(ended) == (100, 25, 75)
    assert bench.server.totals()["billed"] == 25


def test_cancel_of_an_ended_batch(bench, batch_clock):
    done = bench.run(chat_lines(1))
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        bench.client.batches.cancel(done.id)
    failed = bench.run(jsonl([line("a"), line("a")]))
    with pytest.raises(openai.ConflictError, match="status 'failed'"):
        bench.client.batches.cancel(failed.id)
    bench.server.turnaround(validating="1h")
    waiting = bench.create(chat_lines(1))
    bench.client.batches.cancel(waiting.id)
    assert bench.settled(waiting).status == "cancelled"
    assert bench.client.batches.cancel(waiting.id).status == "cancelled"
    with pytest.raises(openai.NotFoundError, match="No batch found with id 'batch_x'"):
        bench.client.batches.cancel("batch_x")


def test_expiry_keeps_what_is_done_and_names_the_rest(bench, batch_clock):
    bench.server.turnaround(working="48h")
    batch = bench.create(chat_lines(10))
    batch_clock.advance("30h")
    ended = bench.client.batches.retrieve(batch.id)
    assert ended.status == "expired"
    assert ended.expired_at == ended.created_at + 86400
    assert len(bench.rows(ended.output_file_id)) == 5
    assert {row["error"]["code"] for row in bench.rows(ended.error_file_id)} == {"batch_expired"}


def test_each_phase_shows_its_status_and_time(bench, batch_clock):
    bench.server.turnaround(validating="1m", working="1h", finalizing="10m")
    batch = bench.create(chat_lines(4))
    seen = [batch.status]
    for step in ("1m", "1h", "10m"):
        batch_clock.advance(step)
        seen.append(bench.client.batches.retrieve(batch.id).status)
    assert seen == ["validating", "in_progress", "finalizing", "completed"]
    ended = bench.client.batches.retrieve(batch.id)
    times = (ended.in_progress_at, ended.finalizing_at, ended.completed_at)
    assert [t - ended.created_at for t in times] == [60, 3660, 4260]


def test_one_jump_of_the_clock_gives_the_same_times_as_many_steps(bench, batch_clock):
    bench.server.turnaround(validating="1m", working="1h", finalizing="10m")
    batch = bench.create(chat_lines(4))
    batch_clock.advance("20h")
    ended = bench.client.batches.retrieve(batch.id)
    times = (ended.in_progress_at, ended.finalizing_at, ended.completed_at)
    assert [t - ended.created_at for t in times] == [60, 3660, 4260]


def test_lists_are_paged_newest_first(bench):
    made = [bench.run(jsonl([line("a", chat_body(str(i)))])).id for i in range(5)]
    first = bench.client.batches.list(limit=2)
    assert [b.id for b in first.data] == made[:2:-1]
    assert first.has_more
    assert first.last_id == made[3]
    assert [b.id for b in bench.client.batches.list(limit=2)] == made[::-1]
    files = [f.id for f in bench.client.files.list(order="asc", purpose="batch", limit=2)]
    assert len(files) == len(set(files)) == 5
    results = bench.client.files.list(purpose="batch_output")
    assert {f.purpose for f in results} == {"batch_output"}
    with pytest.raises(openai.NotFoundError):
        bench.client.batches.list(after="batch_x")
    with pytest.raises(openai.BadRequestError) as caught:
        bench.client.batches.list(limit=101)
    assert caught.value.param == "limit"


def test_files_come_back_as_they_were_and_go(bench):
    data = chat_lines(3)
    file = bench.upload(data)
    assert file.bytes == len(data)
    assert file.expires_at == file.created_at + 30 * 86400
    with bench.client.files.with_streaming_response.content(file.id) as answer:
        assert answer.headers["content-length"] == str(len(data))
        assert b"".join(answer.iter_bytes()) == data
    assert bench.client.files.delete(file.id).deleted
    for ask in (bench.client.files.retrieve, bench.client.files.content, bench.client.files.delete):
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            ask(file.id)


@pytest.mark.parametrize("name", ["a.jsonl", "tide; 1.jsonl", "fl\u00fct 'x'.jsonl", "潮.JSONL"])
def test_a_file_keeps_its_name(bench, name):
    file = bench.upload(chat_lines(1), name)
    assert bench.client.files.retrieve(file.id).filename == name
    assert bench.content(file.id) == chat_lines(1)


def test_a_chunked_upload_without_a_length_is_received(bench):
    form = (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        + chat_lines(50)
        + b"\r\n--x--\r\n"
    )
    answer = bench.client._client.post(
        f"{bench.server.base_url}/files",
        content=(form[i : i + 777] for i in range(0, len(form), 777)),
        headers={"Authorization": "Bearer k", "Content-Type": "multipart/form-data; boundary=x"},
    )
    assert answer.json()["bytes"] == len(chat_lines(50))
    assert bench.content(answer.json()["id"]) == chat_lines(50)


@pytest.mark.parametrize("body", [b"", b"--x\r\n", b"--y--\r\n", b"junk"])
def test_a_broken_form_is_a_400(bench, body):
    answer = bench.client._client.post(
        f"{bench.server.base_url}/files",
        content=body,
        headers={"Authorization": "Bearer k", "Content-Type": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_files_expire(bench, batch_clock):
    file = bench.client.files.create(
        file=("a.jsonl", chat_lines(1)),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    batch = bench.run(chat_lines(2), output_expires_after={"anchor": "created_at", "seconds": 7200})
    batch_clock.advance("61m")
    with pytest.raises(openai.NotFoundError):
        bench.client.files.retrieve(file.id)
    assert len(bench.rows(batch.output_file_id)) == 2
    batch_clock.advance("1h")
    with pytest.raises(openai.NotFoundError):
        bench.client.files.content(batch.output_file_id)


def test_an_input_deleted_while_in_use_is_read_to_its_end(bench, batch_clock):
    bench.server.turnaround(working="1h")
    batch = bench.create(chat_lines(20))
    bench.server.settle()
    bench.client.files.delete(batch.input_file_id)
    batch_clock.advance("2h")
    ended = bench.client.batches.retrieve(batch.id)
    assert ended.request_counts.completed == 20


def test_accounts_do_not_see_each_other():
    accounts = ({"name": "org-a", "key": "key-a"}, {"name": "org-b", "key": "key-b"})
    with SimulatorServer(from_mapping({"accounts": accounts}, SimulatorSettings())) as server:

        def client(key):
            return openai.OpenAI(base_url=server.base_url, api_key=key, max_retries=0)

        with client("key-a") as a, client("key-b") as b, client("key-c-which-is-wrong") as c:
            file = a.files.create(file=("a.jsonl", chat_lines(1)), purpose="batch")
            with pytest.raises(openai.NotFoundError):
                b.files.retrieve(file.id)
            assert b.files.list().data == []
            with pytest.raises(openai.AuthenticationError) as caught:
                c.files.list()
            assert caught.value.code == "invalid_api_key"
            assert "key-c-which" not in str(caught.value)


def test_no_key_is_401(batch_server, batch_client):
    answer = batch_client._client.get(f"{batch_server.base_url}/files")
    assert answer.status_code == 401
    assert "You didn't provide an API key" in answer.json()["error"]["message"]


def test_embeddings_as_base64_are_the_same_vectors(batch_client):
    raw = batch_client.post(
        "/embeddings",
        cast_to=dict,
        body={
            "model": "text-embedding-3-large",
            "input": TEXT,
            "dimensions": 64,
            "encoding_format": "base64",
        },
    )
    packed = base64.b64decode(raw["data"][0]["embedding"])
    plain = batch_client.embeddings.create(
        model="text-embedding-3-large", input=TEXT, dimensions=64, encoding_format="float"
    )
    assert list(struct.unpack("<64f", packed)) == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert sum(x * x for x in plain.data[0].embedding) == pytest.approx(1.0)
