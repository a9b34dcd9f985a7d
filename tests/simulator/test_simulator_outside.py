"""The rest of the outside: report, page, command line, settings, an upstream server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import openai
import pytest

from lowtide.simulator import SimulatorProcess, SimulatorServer, SimulatorSettings
from lowtide.simulator.answers import body_hash
from lowtide.simulator.settings import from_toml
from tests.simulator.support import MODEL, Bench, chat_body, chat_lines, codes, counts, jsonl, line


def test_the_report_counts_each_run_of_each_request(bench):
    bench.run(chat_lines(2))
    bench.run(chat_lines(3))
    bench.client.chat.completions.create(**chat_body("Number 0. x"))
    requests = {item["custom_id"]: item for item in bench.server.requests()}
    assert {key: item["ran"] for key, item in requests.items()} == {
        "r0": 2,
        "r1": 2,
        "r2": 1,
        None: 1,
    }
    assert len(requests["r0"]["batches"]) == 2
    assert requests[None]["modes"] == ["sync"]
    assert requests[None]["body_hash"] == body_hash(chat_body("Number 0. x"))
    assert {item["custom_id"] for item in bench.server.requests(min_ran=2)} == {"r0", "r1"}
    totals = bench.server.totals()
    assert (totals["ran"], totals["ran_twice"], totals["billed_twice"]) == (6, 2, 2)
    assert totals["models"][0]["model"] == MODEL


def test_flex_is_accounted_for_as_such(bench):
    answer = bench.client.chat.completions.create(**chat_body(service_tier="flex"))
    assert answer.service_tier == "flex"
    assert list(bench.server.totals()["modes"]) == ["flex"]


def test_the_page_shows_what_is_there_and_escapes_it(bench):
    bench.server.add_fault("line_error", match="^<b>bold", status=400)
    batch = bench.run(jsonl([line("<b>bold"), line("plain")]))
    bench.upload(chat_lines(1), "<script>alert(1)</script>.jsonl")
    answer = bench.client._client.get(bench.server.url, follow_redirects=True)
    assert answer.headers["content-type"].startswith("text/html")
    for shown in (batch.id, "completed", "line_error", "^&lt;b&gt;bold", "gpt-5-mini", "1 failed"):
        assert shown in answer.text
    assert "<script>alert" not in answer.text


def test_the_page_escapes_the_names_of_models(bench):
    bench.run(jsonl([line("odd", body=chat_body(model="gpt-5-<i>odd"))]))
    page = bench.client._client.get(bench.server.url, follow_redirects=True).text
    assert page.count("gpt-5-&lt;i&gt;odd") == 2  # the bill, and the list of batches
    assert "<i>odd" not in page


def test_the_admin_endpoints_refuse_nonsense(batch_server, batch_client):
    for path, body in (
        ("clock", {"advance": -5}), ("clock", {"forward": 5}), ("clock", []), ("clock", {"set": 0}),
        ("turnaround", {"working": "soon"}), ("turnaround", {"cooking": 1}), ("faults", [[]]),
    ):  # fmt: skip
        answer = batch_client._client.post(f"{batch_server.url}/simulator/{path}", json=body)
        assert answer.status_code == 400, (path, body)
        assert answer.json()["error"]["message"]


def test_flags_of_the_command(tmp_path):
    flags = ("--delay", "1h", "--seed", "4", "--model", "tide-*", "--fault", "token_limit count=1")
    with (
        SimulatorProcess(tmp_path, *flags) as server,
        openai.OpenAI(base_url=server.base_url, api_key="k") as client,
    ):
        bench = Bench(server, client)
        data = jsonl([line("a", {**chat_body(), "model": "tide-9"})])
        assert codes(bench.run(data)) == ["token_limit_exceeded"]
        assert bench.settled(bench.create(data)).status == "in_progress"
        assert codes(bench.run(chat_lines(1))) == ["model_not_found"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--delay", "soon"), "not a duration: 'soon'"),
        (("--chaos", "9"), "from 0 to 3"),
        (("--fault", "rate_limt"), "did you mean 'rate_limit'"),
        (("--config", "/nowhere.toml"), "No such file"),
        (("--upstream", "ftp://x"), "not an http URL"),
    ],
)
def test_a_wrong_flag_is_one_clear_line(flags, said):
    command = [sys.executable, "-m", "lowtide.simulator", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_settings_from_toml(tmp_path):
    file = tmp_path / "simulator.toml"
    file.write_text(
        'delay = "uniform:1h,2h"\nseed = 9\n'
        "[limits]\nmax_requests = 7\n"
        '[[accounts]]\nname = "org-a"\nkey = "k"\ntier = 2\n'
        '[[faults]]\nkind = "crlf"\n'
    )
    told = from_toml(file)
    assert (told.working.kind, told.seed, told.limits.max_requests) == ("uniform", 9, 7)
    account = told.account("k")
    assert account is not None
    assert account.token_limit("gpt-5") == 2_000_000
    assert told.account("x") is None
    for text, said in (
        ("sed = 1", "did you mean seed"),
        ("[limits]\nmax_request = 1", r"did you mean limits\.max_requests"),
        ("delay = [", "simulator.toml"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=said):
            from_toml(file)


def test_an_upstream_server_answers_in_batches_and_at_once(tmp_path):
    """A simulator stands in front of another one, which plays the local model server."""
    with (
        SimulatorServer(SimulatorSettings(state=tmp_path / "model")) as model_server,
        SimulatorServer(
            SimulatorSettings(
                state=tmp_path / "front", upstream=model_server.base_url, upstream_key="k"
            )
        ) as front,
        openai.OpenAI(base_url=front.base_url, api_key="any", max_retries=0) as client,
    ):
        bench = Bench(front, client)
        model_server.add_fault("server_error", count=2, status=503)
        batch = bench.run(chat_lines(20) + jsonl([line("bad", chat_body(temperature=9))]))
        assert counts(batch) == (21, 20, 1)
        (row,) = bench.rows(batch.error_file_id)
        assert row["response"]["body"]["error"]["param"] == "temperature"
        assert client.chat.completions.create(**chat_body()).choices[0].message.content
        assert model_server.totals()["modes"]["sync"]["billed"] == 21
        assert front.totals()["input_tokens"] == model_server.totals()["input_tokens"] > 0


def test_an_upstream_server_that_is_away_fails_the_line(tmp_path, monkeypatch):
    from lowtide.simulator import upstream

    monkeypatch.setattr(upstream, "_LONGEST_PAUSE", 0.0)
    with (
        SimulatorServer(SimulatorSettings(upstream="http://127.0.0.1:9/v1")) as front,
        openai.OpenAI(base_url=front.base_url, api_key="any", max_retries=0) as client,
    ):
        bench = Bench(front, client)
        batch = bench.run(jsonl([line("a", {**chat_body(), "model": "any-model"})]))
        (row,) = bench.rows(batch.error_file_id)
        assert row["response"]["status_code"] == 502
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(**chat_body())


def test_a_server_stays_responsive_while_it_works(bench):
    batch = bench.create(chat_lines(8_000))
    answered = 0
    while bench.client.batches.retrieve(batch.id).status != "completed":
        bench.client.files.list(limit=1)
        answered += 1
    assert answered > 5


def test_nothing_is_left_of_a_server_without_a_state_directory():
    with SimulatorServer() as server:
        root = server.world.root
        assert root.is_dir()
    assert not Path(root).exists()


def test_the_simulator_needs_no_more_than_its_extra():
    code = (
        "import sys, lowtide.simulator;"
        "bad = {'openai', 'pydantic', 'celery', 'redis', 'sqlmodel', 'pytest'} & set(sys.modules);"
        "sys.exit(repr(sorted(bad)) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
