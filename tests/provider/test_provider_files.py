"""Files up and down: whole or not at all, in constant memory."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lowtide.errors import AccountPaused, BatchFailed, LowtideError, ProviderUnavailable
from lowtide.providers.openai import OpenAIProvider
from lowtide.providers.profiles import Profile
from tests.provider.server import DROP, Reply, ScriptedServer

UPLOAD = "POST /v1/files"
RECORD = "GET /v1/files/file-1"
CONTENT = "GET /v1/files/file-1/content"
DATA = b'{"custom_id":"a"}\n' * 5_000
MIB = 1024 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "output.jsonl"


def record(size: object = len(DATA)) -> Reply:
    return Reply(200, {"id": "file-1", "object": "file", "bytes": size})


def test_upload_sends_purpose_name_and_content(
    server: ScriptedServer, provider: OpenAIProvider, path: Path
):
    path.write_bytes(DATA)
    server.on(UPLOAD, Reply(200, {"id": "file-1"}))

    assert provider.upload(path, batch_id="b1") == "file-1"

    [sent] = server.calls(UPLOAD)
    assert DATA in sent.body
    names = re.findall(rb'name="([^"]+)"(?:; filename="([^"]+)")?', sent.body)
    assert names == [(b"purpose", b""), (b"file", b"b1.jsonl")]
    assert b"\r\n\r\nbatch\r\n" in sent.body


def test_upload_asks_for_the_expiry_of_the_profile(server: ScriptedServer, path: Path):
    path.write_bytes(DATA)
    server.on(UPLOAD, Reply(200, {"id": "file-1"}))
    profile = Profile("x", purpose="batch-api", file_expiry=86_400)
    provider = OpenAIProvider("a", api_key="k", base_url=server.base_url, profile=profile)

    provider.upload(path, batch_id="b1")

    [sent] = server.calls(UPLOAD)
    assert re.search(rb'name="expires_after\[seconds\]"\r\n\r\n86400\r\n', sent.body)
    assert re.search(rb'name="expires_after\[anchor\]"\r\n\r\ncreated_at\r\n', sent.body)
    assert re.search(rb'name="purpose"\r\n\r\nbatch-api\r\n', sent.body)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(400, {"error": {"message": "empty", "code": "empty_file"}}), BatchFailed),
        (Reply(413, b"too large"), BatchFailed),
        (Reply(500, b""), ProviderUnavailable),
        (DROP, ProviderUnavailable),
        (Reply(429, {"error": {"message": "slow"}}), ProviderUnavailable),
        (Reply(200, {"object": "file"}), ProviderUnavailable),
        (Reply(401, {"error": {"message": "key"}}), AccountPaused),
        (Reply(404, b"no such page"), AccountPaused),
    ],
)
def test_failures_of_upload(
    server: ScriptedServer,
    provider: OpenAIProvider,
    path: Path,
    reply: Reply,
    expected: type[LowtideError],
):
    path.write_bytes(DATA)
    server.on(UPLOAD, reply)

    with pytest.raises(LowtideError) as raised:
        provider.upload(path, batch_id="b1")

    assert type(raised.value) is expected
    assert len(server.calls(UPLOAD)) == 1


def test_download_writes_the_file(server: ScriptedServer, provider: OpenAIProvider, path: Path):
    server.on(RECORD, record())
    server.on(CONTENT, Reply(200, DATA))

    assert provider.download("file-1", path) == len(DATA)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize(
    "broken",
    [
        Reply(200, DATA, cut=1_000),
        Reply(200, DATA[:1_000], length=False),
        Reply(200, DATA[:1_000]),
        Reply(200, gzip.compress(DATA), {"Content-Encoding": "gzip"}, cut=50),
    ],
    ids=["cut in the body", "ends early without length", "short with matching length", "cut gzip"],
)
def test_a_download_that_breaks_off_is_fetched_again_whole(
    server: ScriptedServer, provider: OpenAIProvider, path: Path, broken: Reply
):
    server.on(RECORD, record())
    server.on(CONTENT, broken, Reply(200, DATA))

    assert provider.download("file-1", path) == len(DATA)
    assert path.read_bytes() == DATA
    assert len(server.calls(CONTENT)) == 2


def test_a_download_that_always_breaks_off_leaves_no_file(
    server: ScriptedServer, provider: OpenAIProvider, path: Path
):
    server.on(RECORD, record())
    server.on(CONTENT, Reply(200, DATA, cut=1_000))

    with pytest.raises(ProviderUnavailable, match="broke off 3 times") as raised:
        provider.download("file-1", path)

    assert raised.value.details["code"] == "truncated_download"
    assert not path.exists()
    assert len(server.calls(CONTENT)) == 3


def test_a_cut_is_seen_by_content_length_when_the_record_tells_no_size(
    server: ScriptedServer, provider: OpenAIProvider, path: Path
):
    server.on(RECORD, Reply(404, {"error": {"message": "no record"}}))
    server.on(CONTENT, Reply(200, DATA, cut=1_000), Reply(200, DATA))

    assert provider.download("file-1", path) == len(DATA)


def test_a_compressed_download_is_whole(
    server: ScriptedServer, provider: OpenAIProvider, path: Path
):
    server.on(RECORD, record())
    server.on(CONTENT, Reply(200, gzip.compress(DATA), {"Content-Encoding": "gzip"}))

    assert provider.download("file-1", path) == len(DATA)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("told", [0, None, "many", 10, -5])
def test_a_record_that_tells_less_than_the_file_has_is_not_believed(
    server: ScriptedServer, provider: OpenAIProvider, path: Path, told: object
):
    server.on(RECORD, record(told))
    server.on(CONTENT, Reply(200, DATA))

    assert provider.download("file-1", path) == len(DATA)


def test_an_empty_file_is_a_file(server: ScriptedServer, provider: OpenAIProvider, path: Path):
    server.on(RECORD, record(0))
    server.on(CONTENT, Reply(200, b""))

    assert provider.download("file-1", path) == 0
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(404, {"error": {"message": "No such File object"}}), ProviderUnavailable),
        (Reply(404, b""), ProviderUnavailable),
        (Reply(500, b""), ProviderUnavailable),
        (Reply(502, b"<html>", cut=3), ProviderUnavailable),
        (DROP, ProviderUnavailable),
        (Reply(401, {"error": {"message": "key"}}), AccountPaused),
    ],
)
def test_a_file_that_is_not_there_may_be_there_later(
    server: ScriptedServer,
    provider: OpenAIProvider,
    path: Path,
    reply: Reply,
    expected: type[LowtideError],
):
    server.on(RECORD, record())
    server.on(CONTENT, reply)

    with pytest.raises(LowtideError) as raised:
        provider.download("file-1", path)

    assert type(raised.value) is expected
    assert not path.exists()


@pytest.mark.parametrize("status", [200, 404, 409])
def test_deleting_and_cancelling_what_is_gone_or_ended_is_fine(
    server: ScriptedServer, provider: OpenAIProvider, status: int
):
    server.on("DELETE /v1/files/file-1", Reply(status, {"id": "file-1"}))
    server.on("POST /v1/batches/batch_1/cancel", Reply(status, {"error": {"message": "ended"}}))

    provider.delete_file("file-1")
    provider.cancel("batch_1")

    assert len(server.seen) == 2


def test_ids_cannot_leave_their_path(server: ScriptedServer, provider: OpenAIProvider):
    server.on("DELETE /v1/files/..%2Fbatches%3Fx", Reply(200, {}))

    provider.delete_file("../batches?x")

    assert [call.path for call in server.seen] == ["/v1/files/..%2Fbatches%3Fx"]


def test_100_megabytes_go_up_and_down_in_constant_memory(
    server: ScriptedServer, provider: OpenAIProvider, tmp_path: Path
):
    def chunks() -> Iterator[bytes]:
        return (b"x" * 65_535 + b"\n" for _ in range(1_600))

    size = 1_600 * 65_536
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    with source.open("wb") as file:
        file.writelines(chunks())
    server.discards("POST /v1/files", Reply(200, {"id": "file-1"}))
    server.on(RECORD, record(size))
    server.on(CONTENT, Reply(chunks=chunks, size=size))
    peak = _peak_of(lambda: provider.upload(source, batch_id="warm"))

    assert peak < 20 * MIB
    assert _peak_of(lambda: provider.download("file-1", target)) < 20 * MIB
    assert target.stat().st_size == size


def _peak_of(action: Callable[[], object]) -> int:
    """How much this process grew at most while `action` ran, by the kernel's own mark."""
    process = psutil.Process()
    Path("/proc/self/clear_refs").write_text("5")
    before = process.memory_info().rss
    action()
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024 - before
