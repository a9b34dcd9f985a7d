"""Every request that was sent is settled: answered, failed for good, or sent again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import orjson
import pytest

from lowtide import control, keys, outcomes, results
from lowtide.deliver import deliver
from lowtide.fetch import fetch
from lowtide.leases import claimed
from lowtide.ledger import BatchRow
from lowtide.outcomes import Answered, Failed
from lowtide.request import Request
from lowtide.runtime import Runtime
from lowtide.simulator import Steering
from lowtide.submit import submit
from tests.pipeline.conftest import Interfering, ended, requests, sealed
from tests.plugins.stack import Simulator


def settled(rt: Runtime, batch_id: str) -> dict[str, Answered | Failed]:
    """Fetches the batch; what its slices hold, by custom_id."""
    after = fetch(rt, batch_id)
    assert after is not None
    found: dict[str, Answered | Failed] = {}
    for number in range(after.slices):
        data = rt.slices.get(batch_id, number)
        assert data is not None
        found.update({outcome.custom_id: outcome for outcome in outcomes.unpack(data)})
    return found


def followers(rt: Runtime, batch_id: str) -> list[BatchRow]:
    """The batches that requests of `batch_id` moved to."""
    return [batch for batch in rt.ledger.batches() if batch.parent == batch_id]


def rewritten(provider: Interfering, change: Any) -> None:
    """Lets `change` rewrite the lines of each result file that is downloaded."""
    real = provider._provider.download

    def download(file_id: str, path: Path) -> int:
        real(file_id, path)
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
        return path.stat().st_size

    provider.__dict__["download"] = download


def submitted(rt: Runtime, given: list[Request]) -> str:
    batch_id = sealed(rt, given)
    submit(rt, batch_id)
    ended(rt, batch_id)
    return batch_id


def test_every_answer_goes_into_a_slice(rt: Runtime, provider: Interfering) -> None:
    rt.settings.slice_requests = 4
    given = requests(10)
    batch_id = submitted(rt, given)

    found = settled(rt, batch_id)

    assert found.keys() == {request.custom_id for request in given}
    assert all(isinstance(outcome, Answered) for outcome in found.values())
    assert followers(rt, batch_id) == []
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    assert batch.state == "FETCHED"


def test_fetching_again_gives_the_same(rt: Runtime, provider: Interfering) -> None:
    batch_id = submitted(rt, requests(3))

    assert settled(rt, batch_id) == settled(rt, batch_id)


def test_a_line_the_model_refuses_fails_alone(rt: Runtime, provider: Interfering) -> None:
    given = requests(4)
    bad = requests(1, temperature=99)
    batch_id = submitted(rt, given + bad)

    found = settled(rt, batch_id)

    failed = found[bad[0].custom_id]
    assert isinstance(failed, Failed)
    assert failed.error == "RequestRejected"
    assert failed.details["status"] == 400
    assert all(isinstance(found[request.custom_id], Answered) for request in given)


def test_missing_lines_go_again(rt: Runtime, provider: Interfering) -> None:
    given = requests(5)
    batch_id = submitted(rt, given)
    rewritten(provider, lambda lines: lines[2:])

    found = settled(rt, batch_id)

    (again,) = followers(rt, batch_id)
    assert len(found) == 3
    assert rt.ledger.ids(again.id) == {r.custom_id for r in given} - found.keys()
    assert again.state == "RECORDED"
    assert rt.ledger.attempt(again.id) == 2
    assert rt.timers.due_at("submit", again.id) == pytest.approx(again.next_at)
    moved = given[[r.custom_id in found for r in given].index(False)]
    where = rt.where(moved.task_id)
    assert where is not None
    assert where.batch_id == again.id


def test_a_status_of_zero_is_no_answer(rt: Runtime, provider: Interfering) -> None:
    batch_id = submitted(rt, requests(2))

    def zero(lines: list[bytes]) -> list[bytes]:
        first = orjson.loads(lines[0])
        first["response"] = {"status_code": 0, "request_id": "", "body": {}}
        return [orjson.dumps(first) + b"\n", *lines[1:]]

    rewritten(provider, zero)

    assert len(settled(rt, batch_id)) == 1
    assert len(followers(rt, batch_id)) == 1


def test_repeated_and_unknown_lines_change_nothing(rt: Runtime, provider: Interfering) -> None:
    given = requests(2)
    batch_id = submitted(rt, given)
    stranger = b'{"custom_id":"x","response":{"status_code":200,"body":{}},"error":null}\n'
    rewritten(provider, lambda lines: [*lines, stranger, b"not json\n", *lines])

    found = settled(rt, batch_id)

    assert found.keys() == {request.custom_id for request in given}
    assert followers(rt, batch_id) == []


@pytest.mark.parametrize("status", [500, 400])
def test_an_answer_counts_wherever_a_failure_of_the_same_line_stands(
    rt: Runtime, provider: Interfering, status: int
) -> None:
    given = requests(2)
    before, after = (request.custom_id for request in given)
    batch_id = submitted(rt, given)

    def failed(name: str) -> bytes:
        body = {"error": {"message": "overloaded", "code": "server_error"}}
        response = {"status_code": status, "request_id": "r", "body": body}
        return orjson.dumps({"custom_id": name, "response": response, "error": None}) + b"\n"

    rewritten(provider, lambda lines: [failed(before), *lines, failed(after)])

    found = settled(rt, batch_id)

    assert {name: type(outcome) for name, outcome in found.items()} == {
        before: Answered,
        after: Answered,
    }
    assert followers(rt, batch_id) == []


@pytest.mark.parametrize("depth", [300, 1010, 5000])
def test_an_answer_that_is_nested_deeply_hurts_no_other(
    rt: Runtime, provider: Interfering, depth: int
) -> None:
    given = requests(2)
    deep, other = (request.custom_id for request in given)
    batch_id = submitted(rt, given)
    nested = b"[" * depth + b"]" * depth
    # A status that is a text makes the line an unusual one, which is read whole.
    line = b'{"custom_id":"%b","response":{"status_code":"200","body":{"x":%b}}}\n'
    rewritten(
        provider,
        lambda lines: [
            line % (deep.encode(), nested) if deep.encode() in each else each for each in lines
        ],
    )

    found = settled(rt, batch_id)

    assert isinstance(found[other], Answered)
    if depth == 300:
        answered = found[deep]
        assert isinstance(answered, Answered)
        assert results.read_body(answered.body) == orjson.loads(b'{"x":%b}' % nested)


def test_a_repeated_answer_of_an_odd_model_hurts_no_other(
    rt: Runtime, provider: Interfering
) -> None:
    given = requests(2)
    batch_id = submitted(rt, given)
    usage = b'{"prompt_tokens":1,"completion_tokens":1}'
    body = b'{"model":["x"],"usage":%b}' % usage
    name = given[0].custom_id.encode()
    odd = b'{"custom_id":"%b","response":{"status_code":200,"body":%b}}\n' % (name, body)
    rewritten(provider, lambda lines: [*lines, odd])

    assert settled(rt, batch_id).keys() == {request.custom_id for request in given}


def test_a_request_that_never_gets_an_answer_fails_after_its_last_attempt(
    rt: Runtime, provider: Interfering
) -> None:
    rt.settings.max_attempts = 2
    given = requests(1)
    batch_id = submitted(rt, given)
    rewritten(provider, lambda _lines: [])

    assert settled(rt, batch_id) == {}
    (again,) = followers(rt, batch_id)
    rt.clock.sleep(max(0.0, (again.next_at or 0.0) - rt.clock.now()))
    submit(rt, again.id)
    ended(rt, again.id)
    found = settled(rt, again.id)

    failed = found[given[0].custom_id]
    assert isinstance(failed, Failed)
    assert failed.error == "AttemptsExhausted"
    tries = failed.details["attempts"]
    first, second = (rt.ledger.batch(each) for each in (batch_id, again.id))
    assert first is not None
    assert second is not None
    assert [each["batch"] for each in tries] == [batch_id, again.id]
    assert [each["provider_batch"] for each in tries] == [
        first.provider_batch_id,
        second.provider_batch_id,
    ]
    assert [each["code"] for each in tries] == ["missing", "missing"]
    assert all(str(batch.provider_batch_id) in failed.message for batch in (first, second))
    assert "sent 2 times without an answer: 1. " in failed.message


def of_two_files(rt: Runtime) -> tuple[BatchRow, Request, Request]:
    """A batch that ended with two files, the request it answered and the one that it did not."""
    (good,), (bad,) = requests(1), requests(1, temperature=99)
    batch = rt.ledger.batch(submitted(rt, [good, bad]))
    assert batch is not None
    assert batch.output_file_id
    assert batch.error_file_id
    return batch, good, bad


def test_an_error_file_that_is_away_keeps_no_answer_back(
    rt: Runtime, provider: Interfering, told: dict[str, Any]
) -> None:
    batch, good, bad = of_two_files(rt)
    provider._provider.delete_file(str(batch.error_file_id))

    assert settled(rt, batch.id).keys() == {good.custom_id}
    deliver(rt, batch.id, 0, "w")
    after = fetch(rt, batch.id)

    assert told.keys() == {good.task_id}
    assert after is not None
    assert (after.verb, after.slices) == ("fetch", 0)
    assert after.at is not None
    assert after.at > rt.clock.now() + rt.settings.lease / 2
    assert followers(rt, batch.id) == []
    assert rt.ledger.ids(batch.id) == {bad.custom_id}


@pytest.mark.parametrize("which", ["output", "error"])
def test_a_file_that_is_gone_for_good_costs_one_attempt(
    rt: Runtime, provider: Interfering, which: str
) -> None:
    batch, good, bad = of_two_files(rt)
    of_both = {"output": (batch.output_file_id, good), "error": (batch.error_file_id, bad)}
    file_id, lost = of_both[which]
    provider._provider.delete_file(str(file_id))
    rt.settings.stuck_after = 0.0

    found = settled(rt, batch.id)

    assert found.keys() == {good.custom_id, bad.custom_id} - {lost.custom_id}
    (again,) = followers(rt, batch.id)
    assert again.reason == "file_gone (1)"
    assert rt.ledger.ids(again.id) == {lost.custom_id}
    assert rt.ledger.attempt(again.id) == 2


def test_lines_named_by_a_failed_validation_fail_and_the_others_go_again(
    rt: Runtime, provider: Interfering
) -> None:
    given = requests(3)
    bad = requests(1, stream=True)
    batch_id = submitted(rt, given + bad)

    found = settled(rt, batch_id)

    assert found.keys() == {bad[0].custom_id}
    failed = found[bad[0].custom_id]
    assert isinstance(failed, Failed)
    assert (failed.error, failed.details["code"]) == ("RequestRejected", "streaming_unsupported")
    (again,) = followers(rt, batch_id)
    assert rt.ledger.ids(again.id) == {request.custom_id for request in given}


@pytest.mark.parametrize("is_named", [True, False])
def test_who_is_left_alone_does_not_fail_for_a_line_that_was_another_s(
    rt: Runtime, provider: Interfering, told: dict[str, Any], *, is_named: bool
) -> None:
    (good,), (bad,) = requests(1), requests(1, stream=True)
    batch_id = submitted(rt, [good, bad])
    if not is_named:
        provider.after["status"] = lambda remote: dataclasses.replace(remote, errors=())
    with claimed(rt, batch_id, [good.custom_id]) as claim:  # a faster service is asked just now
        fetch(rt, batch_id)
        deliver(rt, batch_id, 0, "w")
    rt.ledger.unclaim([good.custom_id], claim.token)

    assert settled(rt, batch_id) == {}

    assert good.task_id not in told
    assert good.custom_id in set().union(*(rt.ledger.ids(b.id) for b in followers(rt, batch_id)))


def test_a_failure_that_names_no_line_is_halved_until_the_culprit_is_alone(
    rt: Runtime, provider: Interfering
) -> None:
    given = requests(4)
    batch_id = sealed(rt, given)
    submit(rt, batch_id)
    culprit = sorted(request.custom_id for request in given)[2]

    def nameless(remote: Any) -> Any:
        """A validation that fails for whichever batch holds the culprit, without saying why."""
        batch = rt.ledger.by_provider_id(remote.id)
        if batch is None or culprit not in rt.ledger.ids(batch.id):
            return remote
        return dataclasses.replace(remote, status="failed", errors=(), output_file_id=None)

    provider.after["status"] = nameless
    provider.after["statuses"] = lambda found: {k: nameless(v) for k, v in found.items()}

    waiting, outcome = [batch_id], {}
    while waiting:
        each = waiting.pop()
        submit(rt, each)
        ended(rt, each)
        outcome.update(settled(rt, each))
        waiting += [batch.id for batch in followers(rt, each)]

    failed = {k for k, v in outcome.items() if isinstance(v, Failed)}
    assert outcome.keys() == {request.custom_id for request in given}
    assert failed == {culprit}


def test_a_batch_that_failed_with_answers_delivers_them(rt: Runtime, provider: Interfering) -> None:
    given = requests(3)
    batch_id = sealed(rt, given)
    submit(rt, batch_id)
    provider.after["statuses"] = lambda found: {
        name: dataclasses.replace(remote, status="failed") if remote.ended else remote
        for name, remote in found.items()
    }
    ended(rt, batch_id)
    rewritten(provider, lambda lines: lines[1:])

    found = settled(rt, batch_id)

    assert len(found) == 2
    assert all(isinstance(outcome, Answered) for outcome in found.values())
    (again,) = followers(rt, batch_id)
    assert rt.ledger.ids(again.id) == {each.custom_id for each in given} - found.keys()
    # The provider ran the batch, so what it says nothing about was tried.
    assert rt.ledger.attempt(again.id) == 2


def test_calls_wait_while_the_account_is_refused_at_validation(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    given = requests(1)
    steering = Steering(simulator.root)
    steering.add_fault("billing_limit", where="validation")
    batch_id = submitted(rt, given)
    steering.clear_faults()

    assert settled(rt, batch_id) == {}

    pause = control.paused(rt, given[0].lane.key)
    assert pause is not None
    assert pause.by_provider
    assert "hard limit" in pause.reason
    (again,) = followers(rt, batch_id)
    assert rt.ledger.attempt(again.id) == 1
    rt.redis.delete(keys.probe(rt.settings.namespace, "default"))  # it is time for a probe
    rt.clock.sleep(max(0.0, (again.next_at or 0.0) - rt.clock.now()))
    submit(rt, again.id)
    ended(rt, again.id)
    assert settled(rt, again.id).keys() == {given[0].custom_id}
    assert control.paused(rt, given[0].lane.key) is None


def test_a_failed_validation_whose_input_file_is_gone_is_halved(
    rt: Runtime, provider: Interfering
) -> None:
    given = requests(1) + requests(1, stream=True)
    batch_id = submitted(rt, given)
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    provider._provider.delete_file(str(batch.input_file_id))

    assert settled(rt, batch_id) == {}
    assert len(followers(rt, batch_id)) == 2


def test_a_request_whose_file_was_deleted_before_validation_goes_again(
    rt: Runtime, provider: Interfering
) -> None:
    given = requests(1)
    deleted: list[str] = []

    def delete_first(file_id: str, **_: object) -> None:
        if not deleted:
            deleted.append(file_id)
            provider.delete_file(file_id)

    provider.before["create"] = delete_first
    batch_id = submitted(rt, given)

    assert settled(rt, batch_id) == {}
    (again,) = followers(rt, batch_id)
    submit(rt, again.id)
    ended(rt, again.id)
    (outcome,) = settled(rt, again.id).values()
    assert isinstance(outcome, Answered)


def test_attempts_are_listed_after_redis_was_emptied(rt: Runtime, provider: Interfering) -> None:
    rt.settings.max_attempts = 3
    given = requests(1)
    batch_id = submitted(rt, given)
    rewritten(provider, lambda lines: lines[:0])
    for _ in range(2):
        assert settled(rt, batch_id) == {}
        (again,) = followers(rt, batch_id)
        batch_id = again.id
        rt.redis.flushdb()
        rt.clock.sleep(max(0.0, (again.next_at or 0.0) - rt.clock.now()))
        submit(rt, batch_id)
        ended(rt, batch_id)

    failed = settled(rt, batch_id)[given[0].custom_id]

    assert isinstance(failed, Failed)
    assert len(failed.details["attempts"]) == 3
