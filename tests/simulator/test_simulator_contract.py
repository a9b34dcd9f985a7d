"""The official schema's own checker stands between a stock client and the simulator."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai import OpenAI

from lowtide.simulator import SimulatorServer
from tests.simulator.support import MODEL, TEXT, Bench, chat_body, chat_lines, jsonl, line

CONTRACT = Path(__file__).parent / "contract"


@contextmanager
def checked(upstream: str, report: Path, fail_on: str) -> Iterator[str]:
    """The proxy in front of ``upstream``; leaving it fails when the side has violations."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, str(CONTRACT / "contract_check.py"), "proxy",
        "--spec", str(CONTRACT / "openai_batch_spec.json"), "--upstream", upstream,
        "--port", str(port), "--report", str(report), "--fail-on", fail_on,
    ]  # fmt: skip
    proxy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert proxy.stdout is not None
    try:
        assert proxy.stdout.readline().startswith("READY")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        proxy.terminate()
        said = proxy.stdout.read()
        code = proxy.wait()
        proxy.stdout.close()
    assert code == 0, said


ENDPOINTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": TEXT}], "model": MODEL},
    "/v1/responses": {"input": TEXT, "model": MODEL, "instructions": "Summarise."},
    "/v1/embeddings": {"input": [TEXT, "tide"], "model": "text-embedding-3-small"},
    "/v1/completions": {"prompt": TEXT, "model": "davinci-002"},
    "/v1/moderations": {"input": TEXT, "model": "omni-moderation-latest"},
}


def test_full_tour_has_no_violation_on_either_side(tmp_path):
    report = tmp_path / "report.json"
    with (
        SimulatorServer() as server,
        checked(server.base_url, report, "all") as proxied,
        OpenAI(base_url=proxied, api_key="sk-test", max_retries=0) as client,
    ):
        bench = Bench(server, client)
        for endpoint, body in ENDPOINTS.items():
            lines = [line(f"{endpoint}-{i}", {**body, "user": str(i)}, endpoint) for i in range(5)]
            if endpoint == "/v1/moderations":
                lines = [line(f"m{i}", body, endpoint) for i in range(5)]
            batch = bench.run(jsonl(lines), endpoint, metadata={"tour": endpoint})
            assert batch.status == "completed"
            assert len(bench.rows(batch.output_file_id)) == 5
        _tour_partial_failure(bench)
        _tour_cancel(bench)
        _tour_expiry(bench)
        _tour_lists(bench)
    seen = json.loads(report.read_text())
    assert seen["exchanges"] >= 45
    assert set(seen["routes"]) >= {
        "POST /files", "GET /files", "GET /files/{file_id}", "GET /files/{file_id}/content",
        "DELETE /files/{file_id}", "POST /batches", "GET /batches", "GET /batches/{batch_id}",
        "POST /batches/{batch_id}/cancel",
    }  # fmt: skip


def _tour_partial_failure(bench: Bench) -> None:
    bench.server.add_fault("line_error", match="^bad", status=429)
    bench.server.add_fault("line_error", match="^slow", code="request_timeout")
    batch = bench.run(jsonl([line("good"), line("bad"), line("slow")]))
    assert [row["custom_id"] for row in bench.rows(batch.output_file_id)] == ["good"]
    assert {row["custom_id"] for row in bench.rows(batch.error_file_id)} == {"bad", "slow"}


def _tour_cancel(bench: Bench) -> None:
    bench.server.freeze()
    bench.server.turnaround(working="2h", finalizing="10m", validating="1m", cancelling="5m")
    batch = bench.create(chat_lines(40))
    for step in ("2m", "30m", "30m"):
        bench.server.advance(step)
        bench.client.batches.retrieve(batch.id)
    bench.client.batches.cancel(batch.id)
    bench.client.batches.retrieve(batch.id)
    bench.server.advance("6m")
    ended = bench.client.batches.retrieve(batch.id)
    assert ended.status == "cancelled"
    done, rest = bench.rows(ended.output_file_id), bench.rows(ended.error_file_id)
    assert len(done) > 0
    assert len(done) + len(rest) == 40


def _tour_expiry(bench: Bench) -> None:
    bench.server.turnaround(working="48h")
    batch = bench.create(
        chat_lines(10), output_expires_after={"anchor": "created_at", "seconds": 7200}
    )
    bench.server.advance("25h")
    ended = bench.client.batches.retrieve(batch.id)
    assert ended.status == "expired"
    assert len(bench.rows(ended.output_file_id)) + len(bench.rows(ended.error_file_id)) == 10


def _tour_lists(bench: Bench) -> None:
    client = bench.client
    assert len(list(client.batches.list(limit=3))) == 8
    assert len(list(client.files.list(limit=2, order="asc", purpose="batch"))) == 8
    file = client.files.create(
        file=("x.jsonl", jsonl([line("y", chat_body("Another text."))])),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert client.files.retrieve(file.id).bytes == file.bytes
    assert client.files.delete(file.id).deleted


def test_refusals_and_failed_validation_are_in_the_services_shape(tmp_path):
    with (
        SimulatorServer() as server,
        checked(server.base_url, tmp_path / "report.json", "server") as proxied,
        OpenAI(base_url=proxied, api_key="sk-test", max_retries=0) as client,
    ):
        bench = Bench(server, client)
        failed = bench.run(b'{"oops\n' + jsonl([line("a"), line("a")]))
        assert failed.status == "failed"
        for path in ("/files/file-none", "/batches/batch_none", "/batches?limit=0", "/nothing"):
            assert client._client.get(
                proxied + path, headers={"Authorization": "Bearer x"}
            ).status_code in (400, 404)
        assert client._client.get(f"{proxied}/batches").status_code == 401
