"""Redis comes back with what it held a while ago: after a crash, a failover, from a snapshot."""

from __future__ import annotations

from lowtide import keys
from lowtide.pipeline import Next
from lowtide.request import Request
from lowtide.runtime import Runtime
from lowtide.submit import submit
from tests.pipeline.conftest import LANE, Interfering, billed, ended, requests, sealed
from tests.plugins.stack import Simulator


def held(rt: Runtime) -> dict[bytes, bytes]:
    """All keys of the deployment, as they are now."""
    names = rt.redis.scan_iter(match=f"{keys.prefix(rt.settings.namespace)}*")
    return {name: value for name in names if (value := rt.redis.dump(name)) is not None}


def goes_back(rt: Runtime, to: dict[bytes, bytes]) -> None:
    """Redis holds again what it held then."""
    now = list(rt.redis.scan_iter(match=f"{keys.prefix(rt.settings.namespace)}*"))
    rt.redis.delete(*now)
    for name, value in to.items():
        rt.redis.restore(name, 14 * 86_400_000 if rt.redis.ttl(name) else 0, value)


def sent_by(rt: Runtime, given: list[Request]) -> dict[str, str]:
    """Request → the batch that the ledger has it in."""
    return rt.ledger.batches_of([request.custom_id for request in given])


def test_what_is_added_to_a_buffer_that_was_recorded_already_is_sent_too(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    old, new = requests(2), requests(3)
    rt.buffer.append(old)
    then = held(rt)
    batch_id = rt.buffer.seal(LANE.key, only_if_due=False)
    assert batch_id is not None
    submit(rt, batch_id)

    goes_back(rt, then)
    rt.buffer.append(new)
    again = rt.buffer.seal(LANE.key, only_if_due=False)
    assert again == batch_id
    submit(rt, again)

    (other,) = set(sent_by(rt, new).values())
    assert len(sent_by(rt, new)) == 3
    assert rt.buffer.sealed() == []
    assert rt.timers.due_at("submit", other) is not None
    where = rt.where(new[0].task_id)
    assert where is not None
    assert (where.batch_id, where.lane, where.state) == (other, LANE.key, "RECORDED")
    after = submit(rt, other)
    assert isinstance(after, Next)
    assert after.verb == "poll"
    for each in (batch_id, other):
        ended(rt, each)
    assert billed(simulator, old + new) == [1] * 5


def test_a_buffer_that_comes_back_as_it_was_recorded_is_dropped(
    rt: Runtime, provider: Interfering
) -> None:
    given = requests(2)
    batch_id = sealed(rt, given)
    then = held(rt)
    submit(rt, batch_id)

    goes_back(rt, then)
    assert submit(rt, batch_id) is None

    assert rt.buffer.sealed() == []
    assert [batch.id for batch in rt.ledger.batches()] == [batch_id]
    assert provider.calls.count("create") == 1
