"""The plan of faults itself: counts, draws, matching, where rules come from, ready mixes."""

from __future__ import annotations

import itertools
from typing import Any

import httpx2
import openai
import pytest

from lowtide.simulator import SimulatorServer, SimulatorSettings, chaos
from lowtide.simulator.faults import Faults, parse_flag
from lowtide.simulator.settings import from_toml
from lowtide.simulator.store import Store
from tests.simulator.support import CHAT, Bench, chat_body, chat_lines, jsonl, line, rows


def test_count_skip_and_probability(tmp_path):
    stores = (Store(tmp_path / f"{number}.db") for number in itertools.count())

    def hits(seed, **rule):
        faults = Faults(next(stores), seed, [{"kind": "refuse", **rule}])
        return [faults.http("GET", "/v1/files") is not None for _ in range(400)]

    assert hits(0, count=2, skip=1)[:5] == [False, True, True, False, False]
    first, again, other = (hits(s, probability=0.25) for s in (1, 1, 2))
    assert first == again != other
    assert 60 < sum(first) < 140


def test_the_first_rule_that_fits_acts(bench):
    bench.server.add_fault("rate_limit", match="GET /v1/batches$", count=1)
    bench.server.add_fault("server_error")
    with pytest.raises(openai.RateLimitError):
        bench.client.batches.list()
    with pytest.raises(openai.InternalServerError):
        bench.client.batches.list()
    assert [rule["hits"] for rule in bench.server.faults()] == [1, 1]
    bench.server.clear_faults()
    assert bench.client.batches.list().data == []


def test_batch_rules_match_endpoint_and_metadata(bench):
    bench.server.add_fault("token_limit", match='"team":"red"')
    assert bench.run(chat_lines(1), metadata={"team": "blue"}).status == "completed"
    assert bench.run(chat_lines(1), metadata={"team": "red"}).status == "failed"


def test_a_wrong_rule_is_refused_with_the_nearest_right_word(batch_server):
    for params, said in (
        ({"kind": "rate_limt"}, "did you mean 'rate_limit'"),
        ({"kind": "rate_limit", "retry_afer": 1}, "did you mean 'retry_after'"),
        ({"kind": "refuse", "match": "("}, "no regular expression"),
    ):
        with pytest.raises(ValueError, match=said):
            batch_server.add_fault(**params)


def test_rules_from_toml_and_flag_and_their_counters_survive_a_restart(tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text('seed = 3\n[[faults]]\nkind = "content_missing"\ncount = 2\n')
    told = from_toml(file, SimulatorSettings(state=tmp_path / "state"))
    flag = parse_flag("rate_limit match='POST /v1/batches$' count=2 retry_after=0.5")
    assert flag == {
        "kind": "rate_limit",
        "match": "POST /v1/batches$",
        "count": 2,
        "retry_after": 0.5,
    }
    for hits in (1, 2):
        with (
            SimulatorServer(told) as server,
            openai.OpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client,
        ):
            if hits == 1:
                server.add_fault(**flag)
            with pytest.raises(openai.NotFoundError):
                client.files.content("file-x")
            assert [rule["kind"] for rule in server.faults()] == ["content_missing", "rate_limit"]
            assert server.faults()[0]["hits"] == hits


def test_chaos_levels_are_real_rules_and_grow(tmp_path):
    sizes = [len(Faults(Store(tmp_path / f"{n}.db"), 0, chaos.rules(n)).rules()) for n in range(4)]
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 0
    with pytest.raises(ValueError, match="0 to 3"):
        chaos.rules(4)


@pytest.mark.batch_server(chaos=3, seed=11)
def test_a_patient_client_comes_through_the_storm(batch_server):
    """Retries, looks again and asks for the rest; every answer is got in the end."""
    wanted = {f"r{i}" for i in range(60)}
    with openai.OpenAI(base_url=batch_server.base_url, api_key="k", max_retries=12) as client:
        bench, rounds = Bench(batch_server, client), 0
        got: dict[str, Any] = {}
        batch_server.turnaround(working=0)
        while wanted - set(got):
            rounds += 1
            assert rounds < 60
            missing = sorted(wanted - set(got))
            batch = bench.create(jsonl([line(i, chat_body(f"{i} {CHAT}")) for i in missing]))
            batch_server.advance("25h")
            for row in _result_rows(bench, batch.id):
                if row["custom_id"] in wanted and (row["response"] or {}).get("status_code") == 200:
                    got[row["custom_id"]] = row
    assert set(got) == wanted


def _result_rows(bench, batch_id):
    found = []
    for _ in range(20):
        ended = bench.client.batches.retrieve(batch_id)
        if not ended.output_file_id:
            return []
        try:
            size = bench.client.files.retrieve(ended.output_file_id).bytes
            content = bench.content(ended.output_file_id)
        except (httpx2.HTTPError, openai.NotFoundError):
            continue
        if len(content) == size:
            found = rows(content)
            break
    return found
