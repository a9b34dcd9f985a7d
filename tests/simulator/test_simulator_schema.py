"""schemathesis throws what the official schema allows, and what it does not, at the server.

Checks that are left out, since the schema itself deviates from the service there:

- ``negative_data_rejection``: the service ignores query parameters that it does not know, and the
  schema forbids none of them.
- ``positive_data_acceptance``: the service bounds ``limit``, wants a name that ends with ``.jsonl``
  for batch files, a content that is not empty, at most 16 pairs of metadata; the schema says none
  of it.

One enumeration is mended: a file can be uploaded with the purpose ``evals``, but the File object of
the schema cannot say so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import orjson
import pytest

from lowtide.simulator import Account, SimulatorServer, SimulatorSettings
from tests.simulator.support import CHAT, Bench, chat_lines
from tests.simulator.test_simulator_contract import CONTRACT

if os.environ.get("CI") == "true":
    import schemathesis
else:
    schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

KEY = "sk-schema-test"
LEFT_OUT = [checks.negative_data_rejection, checks.positive_data_acceptance]


@pytest.fixture(scope="module")
def served() -> Iterator[SimulatorServer]:
    import openai

    with (
        SimulatorServer(SimulatorSettings(accounts=(Account("org", KEY),))) as server,
        openai.OpenAI(base_url=server.base_url, api_key=KEY) as client,
    ):
        Bench(server, client).run(chat_lines(2), CHAT)
        yield server


OPERATIONS = [
    ("/files", "GET"), ("/files", "POST"), ("/files/{file_id}", "GET"), ("/files/{file_id}", "DELETE"),
    ("/files/{file_id}/content", "GET"), ("/batches", "GET"), ("/batches", "POST"),
    ("/batches/{batch_id}", "GET"), ("/batches/{batch_id}/cancel", "POST"),
]  # fmt: skip


@pytest.fixture(scope="module")
def official(served):
    document = orjson.loads((CONTRACT / "openai_batch_spec_soft.json").read_bytes())
    document["components"]["schemas"]["OpenAIFile"]["properties"]["purpose"]["enum"].append("evals")
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=served.base_url)
    assert sorted(OPERATIONS) == sorted(
        (found.ok().path, found.ok().method.upper())
        for found in schema.get_all_operations()
        if isinstance(found, Ok)
    )
    return schema


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_answers_conform_to_the_official_schema(official, path, method, mode):
    operation = official[path][method]
    try:
        strategy = operation.as_strategy(generation_mode=mode)
        strategy.validate()
    except Exception as error:
        pytest.skip(f"nothing can be generated here: {error}")
    answered = []

    @settings(
        max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=strategy)
    def ask(case):
        answer = case.call_and_validate(
            headers={"Authorization": f"Bearer {KEY}"}, excluded_checks=LEFT_OUT
        )
        answered.append(answer.status_code)

    ask()
    assert answered
