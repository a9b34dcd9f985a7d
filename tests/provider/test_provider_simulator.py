"""The whole way through the simulator, over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lowtide.answer import Answer
from lowtide.providers import RemoteBatch
from lowtide.providers.openai import OpenAIProvider
from lowtide.request import CHAT, EMBEDDINGS, Request, encode, to_call
from lowtide.results import Answered, Rejected, parse_line, read_lines
from tests.plugins.stack import Simulator, until

Connect = Callable[[str], OpenAIProvider]


@pytest.fixture
def real(simulator: Simulator, connect: Connect) -> OpenAIProvider:
    return connect(simulator.base_url)


def line(custom_id: str, returned: object, **task: Any) -> bytes:
    lane, body, tokens = encode(to_call(returned, **task), account="default")
    return Request(custom_id, custom_id, "t", lane, body, b"", tokens).line()


def finished(provider: OpenAIProvider, batch_id: str) -> RemoteBatch:
    return until(
        lambda: batch if (batch := provider.status(batch_id)).ended else None, f"{batch_id} ends"
    )


def test_lines_go_up_and_answers_come_down(real: OpenAIProvider, tmp_path: Path):
    path = tmp_path / "b.jsonl"
    separators = "One\u2028two\u2029three\x85four. It rained all day in Utrecht."
    path.write_bytes(
        line("a.0.0", separators, model="gpt-5-mini")
        + line("b.0.0", {"messages": [{"role": "nobody"}]}, model="gpt-5-mini")
    )

    file_id = real.upload(path, batch_id="b1")
    made = real.create(file_id, endpoint=CHAT, batch_id="b-way")
    ended = finished(real, made.id)

    assert ended.status == "completed"
    assert ended.metadata == {"lowtide_batch": "b-way"}
    assert (ended.counts.completed, ended.counts.failed) == (1, 1)
    outcomes = {}
    for file in (ended.output_file_id, ended.error_file_id):
        assert file is not None
        assert real.download(file, tmp_path / "result") == (tmp_path / "result").stat().st_size
        for raw in read_lines(tmp_path / "result"):
            parsed = parse_line(raw)
            assert parsed is not None
            outcomes[parsed.custom_id] = parsed.outcome
    answered, rejected = outcomes["a.0.0"], outcomes["b.0.0"]
    assert isinstance(answered, Answered)
    assert Answer(CHAT, answered.body).text
    assert answered.usage is not None
    assert answered.usage.input_tokens > 0
    assert isinstance(rejected, Rejected)
    assert rejected.status == 400


def test_a_batch_that_fails_validation_names_its_lines(real: OpenAIProvider, tmp_path: Path):
    path = tmp_path / "b.jsonl"
    good = line("a.0.0", "x", model="gpt-5-mini")
    path.write_bytes(good + b'{"custom_id": "b", \n' + good)

    made = real.create(real.upload(path, batch_id="b1"), endpoint=CHAT, batch_id="b-bad")
    ended = finished(real, made.id)

    assert ended.status == "failed"
    assert [each.line for each in ended.errors] != [None]
    assert ended.errors[0].code


def test_a_running_batch_can_be_cancelled_and_its_files_deleted(tmp_path: Path, connect: Connect):
    slow = Simulator(tmp_path, "--delay", "1h")
    try:
        provider = connect(slow.base_url)
        path = tmp_path / "b.jsonl"
        path.write_bytes(line("a.0.0", "x", model="gpt-5-mini"))
        file_id = provider.upload(path, batch_id="b1")
        made = provider.create(file_id, endpoint=CHAT, batch_id="b1")

        provider.cancel(made.id)
        assert finished(provider, made.id).status == "cancelled"
        provider.cancel(made.id)
        provider.delete_file(file_id)
        provider.delete_file(file_id)
    finally:
        slow.stop()


def test_the_synchronous_api_answers_at_once(real: OpenAIProvider):
    body = real.run(EMBEDDINGS, {"model": "text-embedding-3-small", "input": ["a", "b"]})

    assert len(Answer(EMBEDDINGS, body).embeddings) == 2


def test_one_provider_serves_many_threads(real: OpenAIProvider):
    found: list[Any] = []
    body = {"model": "text-embedding-3-small", "input": "a"}
    threads = [
        threading.Thread(target=lambda: found.append(real.run(EMBEDDINGS, body))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(found) == 8
    assert len(real._clients) == 1


def test_a_forked_child_opens_its_own_connections(simulator: Simulator):
    script = """
        import os, sys
        from lowtide.providers.openai import OpenAIProvider
        provider = OpenAIProvider("default", api_key="k", base_url=sys.argv[1])
        body = {"model": "text-embedding-3-small", "input": "a"}
        provider.run("/v1/embeddings", body)
        first = provider._client()
        child = os.fork()
        if not child:
            good = provider._client() is not first and provider.run("/v1/embeddings", body)["data"]
            os._exit(0 if good else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        assert provider._client() is first
        provider.run("/v1/embeddings", body)
    """
    _run(script, simulator.base_url)


def test_under_gevent_calls_run_side_by_side(simulator: Simulator):
    script = """
        from gevent import monkey; monkey.patch_all()
        import gevent, sys
        from lowtide.providers.openai import OpenAIProvider
        from lowtide.request import Request, pack, unpack
        from lowtide.lane import Lane
        provider = OpenAIProvider("default", api_key="k", base_url=sys.argv[1])
        lane = Lane("default", "/v1/embeddings", "m")
        def one(n):
            request = Request(f"{n}.0.0", str(n), "t", lane, b"{}", b"", 1)
            assert unpack(f"{n}.0.0", lane, pack(request)) == request
            return provider.run("/v1/embeddings", {"model": "text-embedding-3-small", "input": "a"})
        jobs = [gevent.spawn(one, n) for n in range(20)]
        gevent.joinall(jobs, timeout=60, raise_error=True)
        assert all(job.value["data"] for job in jobs)
        provider.close()
    """
    _run(script, simulator.base_url)


def _run(script: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr
