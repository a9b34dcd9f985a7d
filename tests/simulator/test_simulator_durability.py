"""Nothing is lost by a kill, and nothing grows with the size of a file."""

from __future__ import annotations

import time
from pathlib import Path

import openai
import orjson
import psutil
import pytest

from lowtide.simulator import SimulatorProcess
from lowtide.simulator.records import BatchRecord
from lowtide.simulator.store import Store
from tests.simulator.support import Bench, chat_body, chat_lines, codes, counts, jsonl, line, rows

_SIZE = 200_000_000
_GROWTH = 30_000_000


def client_of(server: SimulatorProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key="k", max_retries=0)


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"


def test_kill_9_in_the_middle_of_a_batch_loses_nothing_and_bills_nothing_twice(tmp_path):
    count = 6_000
    with (
        SimulatorProcess(tmp_path / "state", "--fault", "line_error match=7$ status=500") as server,
        client_of(server) as client,
    ):
        bench = Bench(server, client)
        batch = bench.create(chat_lines(count), metadata={"mine": "yes"})
        kills = 0
        for share in (0.1, 0.4, 0.7):
            until(lambda s=share: _done(client, batch.id) >= count * s)
            if client.batches.retrieve(batch.id).status == "in_progress":
                kills += 1
            server.kill()
            server.start()
        ended = bench.settled(batch)
        assert kills > 0, "the batch was too quick to be killed in its middle"
        assert (ended.status, ended.metadata) == ("completed", {"mine": "yes"})
        good, bad = bench.rows(ended.output_file_id), bench.rows(ended.error_file_id)
        ids = [row["custom_id"] for row in (*good, *bad)]
        assert len(ids) == count
        assert set(ids) == {f"r{i}" for i in range(count)}
        assert all(row["custom_id"].endswith("7") for row in bad)
        totals = server.totals()
        assert (totals["ran"], totals["ran_twice"], totals["billed_twice"]) == (count, 0, 0)
        assert ended.usage is not None
        assert ended.usage.input_tokens == totals["input_tokens"]


def _done(client: openai.OpenAI, batch_id: str) -> int:
    return sum(counts(client.batches.retrieve(batch_id))[1:])


def test_clock_plan_and_waiting_batches_go_on_after_a_kill(tmp_path):
    with (
        SimulatorProcess(tmp_path / "state", "--delay", "2h", "--cancelling", "5m") as server,
        client_of(server) as client,
    ):
        server.freeze()
        bench = Bench(server, client)
        waiting, leaving = bench.create(chat_lines(10)), bench.create(jsonl([line("x")]))
        server.advance("1h")
        client.batches.cancel(leaving.id)
        before = server.now()
        server.kill()
        server.start()
        assert server.now() == before
        assert counts(client.batches.retrieve(waiting.id))[1] == 5
        assert client.batches.retrieve(leaving.id).status == "cancelling"
        server.advance("1h")
        ended = client.batches.retrieve(waiting.id)
        assert (ended.status, len(bench.rows(ended.output_file_id))) == ("completed", 10)
        assert client.batches.retrieve(leaving.id).status == "cancelled"


def test_an_upload_that_was_cut_leaves_nothing(tmp_path):
    with SimulatorProcess(tmp_path / "state") as server:
        stray = tmp_path / "state" / "files" / "x.part"
        stray.write_bytes(b"half")
        server.kill()
        server.start()
        assert not stray.exists()


@pytest.mark.slow
def test_200_mb_up_and_down_and_run_in_constant_memory(tmp_path):
    path = tmp_path / "big.jsonl"
    _write_big(path)
    with SimulatorProcess(tmp_path / "state") as server, client_of(server) as client:
        client.files.create(file=("warm.jsonl", b"{}\n"), purpose="batch")
        base = psutil.Process(server.pid).memory_info().rss
        with path.open("rb") as source:
            file = client.files.create(file=source, purpose="batch")
        assert file.bytes == path.stat().st_size > _SIZE
        assert _peak(server.pid) - base < _GROWTH
        assert _same_content(client, file.id, path)
        assert _peak(server.pid) - base < _GROWTH
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        server.settle()
        ended = client.batches.retrieve(batch.id)
        assert ended.status == "completed"
        assert _peak(server.pid) - base < _GROWTH


def _write_big(path: Path) -> None:
    body = chat_body("The tide rises and falls. " * 600)
    with path.open("wb") as file:
        number = 0
        while file.tell() <= _SIZE:
            file.write(orjson.dumps(line(f"r{number}", body)) + b"\n")
            number += 1


def _same_content(client: openai.OpenAI, file_id: str, path: Path) -> bool:
    with (
        client.files.with_streaming_response.content(file_id) as answer,
        path.open("rb") as original,
    ):
        assert answer.headers["content-length"] == str(path.stat().st_size)
        same = all(chunk == original.read(len(chunk)) for chunk in answer.iter_bytes(1 << 20))
        return same and original.read(1) == b""


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_a_batch_that_cannot_go_on_ends_alone(bench, batch_clock, tmp_path, caplog):
    bench.server.turnaround(validating="1h")
    broken, whole = bench.create(chat_lines(2)), bench.create(chat_lines(3))
    (tmp_path / "batch-server" / "files" / broken.input_file_id).unlink()
    batch_clock.advance("2h")
    assert codes(bench.client.batches.retrieve(broken.id)) == ["server_error"]
    assert bench.client.batches.retrieve(whole.id).status == "completed"
    assert broken.id in caplog.text


def test_hundreds_of_waiting_batches_end_in_the_order_of_time(bench, batch_clock):
    bench.server.turnaround(working="uniform:1h,20h")
    file = bench.upload(chat_lines(2))
    for _ in range(150):
        bench.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
    batch_clock.advance("10h")
    halfway = list(bench.client.batches.list(limit=100))
    assert {batch.status for batch in halfway} == {"in_progress", "completed"}
    batch_clock.advance("11h")
    ended = list(bench.client.batches.list(limit=100))
    assert [batch.status for batch in ended] == ["completed"] * 150
    took = {batch.completed_at - batch.created_at for batch in ended}
    assert len(took) > 100
    assert min(took) >= 3600
    assert max(took) <= 72000


def _stopped_halfway(tmp_path, **upload):
    """A state directory in which half of a batch of 20 is done; its id, and where its files are."""
    with SimulatorProcess(tmp_path / "state", "--delay", "2h") as server:
        server.freeze()
        with client_of(server) as client:
            file = client.files.create(file=("a.jsonl", chat_lines(20)), purpose="batch", **upload)
            batch = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            server.advance("1h")
            assert counts(client.batches.retrieve(batch.id))[1] == 10
        server.kill()
    return batch.id


def _ended(tmp_path, batch_id):
    with SimulatorProcess(tmp_path / "state") as server, client_of(server) as client:
        server.advance("2h")
        ended = client.batches.retrieve(batch_id)
        return ended, Bench(server, client).content(ended.output_file_id)


def test_what_a_kill_left_beyond_the_last_commit_is_cut_off(tmp_path):
    batch_id = _stopped_halfway(tmp_path)
    files = tmp_path / "state" / "files"
    (part,) = [p for p in files.glob("file-*") if b'"batch_req_' in p.read_bytes()]
    with part.open("ab") as file:
        file.write(b'{"id":"batch_req_half')
    ended, content = _ended(tmp_path, batch_id)
    assert ended.status == "completed"
    assert len({row["custom_id"] for row in rows(content)}) == content.count(b"\n") == 20


def test_an_input_that_expires_while_in_use_is_read_to_its_end(tmp_path):
    life = {"anchor": "created_at", "seconds": 3600}
    batch_id = _stopped_halfway(tmp_path, expires_after=life)
    ended, content = _ended(tmp_path, batch_id)
    assert (ended.status, len(rows(content))) == ("completed", 20)
    with SimulatorProcess(tmp_path / "state") as server, client_of(server) as client:
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(ended.input_file_id)
        assert not (tmp_path / "state" / "files" / ended.input_file_id).exists()


def test_a_wish_to_cancel_wins_over_a_completion_in_the_same_instant(tmp_path):
    store = Store(tmp_path / "simulator.db")
    batch = BatchRecord("batch_1", "org", "/v1/responses", "file-1", created_at=1.0)
    store.add_batch(batch, lambda made: None)
    batch.status = "completed"
    store.request_cancel("batch_1", 2.0)
    assert not store.finish(batch, [], lambda db: None, unless_cancelled=True)
    found = store.batch("batch_1")
    assert found is not None
    assert (found.status, found.render()["status"]) == ("validating", "cancelling")
    store.close()
