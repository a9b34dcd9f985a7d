"""Result files as a hostile provider might send them: fetch settles each request once, with its own.

The parser alone is fuzzed in tests/provider; here it is the whole step, with ledger and slices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from lowtide import outcomes
from lowtide.fetch import fetch
from lowtide.submit import submit
from lowtide.track import track
from tests.chaos.scripted import answer
from tests.chaos.test_machine import Machine, quietly

COUNT = 5
__all__ = ["quietly"]

NAMES = st.integers(0, COUNT + 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
LINES = st.one_of(
    st.tuples(st.just("answer"), NAMES),
    st.tuples(st.just("failed"), NAMES, st.sampled_from([0, 400, 404, 429, 500, 503])),
    st.tuples(st.just("odd"), NAMES, JSON),
    st.tuples(st.just("cut"), NAMES, st.integers(1, 60)),
    st.tuples(st.just("bytes"), st.binary(max_size=80)),
    st.tuples(st.just("deep"), st.integers(1, 3000)),
)


def written(line: tuple[Any, ...], names: list[str]) -> bytes:
    kind, rest = line[0], line[1:]
    if kind == "bytes":
        return bytes(rest[0])
    if kind == "deep":
        return b"[" * int(rest[0]) + b"]" * int(rest[0])
    name = names[rest[0]] if rest[0] < len(names) else "nobody.0.0"
    body = answer({"model": "gpt-5-mini", "messages": [{"content": f"prompt of {name}"}]})
    if kind == "failed":
        body = {"error": {"message": "no", "code": "x"}}
    status = rest[1] if kind == "failed" else 200
    if kind == "odd":
        return orjson.dumps({"custom_id": name, "response": None, "error": None, "x": 1})
    response = {"status_code": status, "request_id": "r", "body": body}
    whole = orjson.dumps({"custom_id": name, "response": response, "error": None})
    return whole[: rest[1]] if kind == "cut" else whole


def test_each_request_is_settled_once_with_its_own_answer(
    redis: Redis, redis_url: str, quietly: Callable[..., Any]
) -> None:
    machine_type = quietly(redis, redis_url)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(output=st.lists(LINES, max_size=12), errors=st.lists(LINES, max_size=6))
    def fuzz(output: list[Any], errors: list[Any]) -> None:
        machine: Machine = machine_type()
        try:
            check(machine, output, errors)
        finally:
            machine.rt.ledger.close()
            machine.folder.cleanup()

    fuzz()


def check(machine: Machine, output: list[Any], errors: list[Any]) -> None:
    rt, provider = machine.rt, machine.provider
    names = [f"t{n}.0.0" for n in range(COUNT)]
    machine.steps.update({f"t{n}": 1 for n in range(COUNT)})
    rt.accept([machine.backend.request(f"t{n}", 0) for n in range(COUNT)])
    (batch_id,) = [batch.batch_id for batch in rt.buffer.sealed()]
    submit(rt, batch_id)
    (remote,) = provider.running()
    files = [b"\n".join(written(line, names) for line in lines) for lines in (output, errors)]
    provider.files |= {"out": files[0], "err": files[1]}
    provider._end(remote, status="completed", output_file_id="out", error_file_id="err")
    track(rt, [batch_id])

    after = fetch(rt, batch_id)

    assert after is not None
    settled = [
        outcome
        for number in range(after.slices)
        for outcome in outcomes.unpack(rt.slices.get(batch_id, number) or b"")
    ]
    told = [outcome.custom_id for outcome in settled]
    again = {name for name, (_, of) in machine._rows().items() if of == "RECORDED"}
    assert sorted([*told, *again]) == names, "each is told or sent again, and none twice"
    for outcome in settled:
        if isinstance(outcome, outcomes.Answered):
            said = orjson.loads(outcome.body)["choices"][0]["message"]["content"]
            assert said == f"prompt of {outcome.custom_id}"
