"""No file stays at the provider, whichever replica uploaded it and died or came late."""

from __future__ import annotations

from typing import Any

import pytest

from lowtide import keys
from lowtide.clock import SimulatedClock
from lowtide.deliver import deliver
from lowtide.errors import AccountPaused, CreateAmbiguous, ProviderError, ProviderUnavailable
from lowtide.fetch import fetch
from lowtide.revoke import revoke
from lowtide.runtime import Runtime
from lowtide.submit import submit
from tests.pipeline.conftest import Interfering, ended, requests, sealed
from tests.plugins.stack import Simulator


def away(*_: object, **__: object) -> Any:
    raise ProviderUnavailable("It cannot be reached.", {"retry_after": 0.001})


def uploaded_and_lost(rt: Runtime, provider: Interfering) -> str:
    """A batch of which a file was uploaded whose id went with its replica."""
    batch_id = sealed(rt, requests(2))
    provider.after["upload"] = away
    submit(rt, batch_id)
    del provider.after["upload"]
    assert files(provider, batch_id) == 1
    return batch_id


def answered(rt: Runtime, batch_id: str) -> None:
    submit(rt, batch_id)
    ended(rt, batch_id)
    fetch(rt, batch_id)


def files(provider: Interfering, batch_id: str) -> int:
    return len(provider._provider.uploaded(batch_id, since=0.0))


def state(rt: Runtime, batch_id: str) -> str:
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    return str(batch.state)


def test_what_could_not_be_looked_for_before_goes_when_the_batch_is_closed(
    rt: Runtime, provider: Interfering, told: dict[str, Any]
) -> None:
    batch_id = uploaded_and_lost(rt, provider)
    provider.before["uploaded"] = away
    answered(rt, batch_id)
    assert files(provider, batch_id) == 2

    with pytest.raises(ProviderUnavailable):
        deliver(rt, batch_id, 0, "w1")
    assert (len(told), state(rt, batch_id)) == (2, "FETCHED")

    del provider.before["uploaded"]
    deliver(rt, batch_id, None, "w1")
    assert (files(provider, batch_id), state(rt, batch_id)) == (0, "DELIVERED")


def test_a_batch_that_is_cut_leaves_none(rt: Runtime, provider: Interfering) -> None:
    batch_id = uploaded_and_lost(rt, provider)
    rt.settings.enqueued_tokens = 30
    provider.before["uploaded"] = away
    waits = submit(rt, batch_id)
    assert waits is not None
    assert (files(provider, batch_id), state(rt, batch_id)) == (1, "RECORDED")

    del provider.before["uploaded"]
    submit(rt, batch_id)

    assert (files(provider, batch_id), state(rt, batch_id)) == (0, "CANCELLED")
    assert len([each for each in rt.ledger.batches() if each.parent == batch_id]) == 2


def test_a_batch_does_not_wait_for_its_files_for_ever(
    rt: Runtime, provider: Interfering, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = uploaded_and_lost(rt, provider)
    provider.before["uploaded"] = away
    answered(rt, batch_id)
    later = rt.clock.now() + 3601
    monkeypatch.setattr(rt, "clock", SimulatedClock(later))

    deliver(rt, batch_id, 0, "w1")

    assert (len(told), state(rt, batch_id)) == (2, "DELIVERED")


def test_the_file_that_is_kept_stays(
    rt: Runtime, provider: Interfering, told: dict[str, Any]
) -> None:
    rt.settings.keep_files = True
    batch_id = uploaded_and_lost(rt, provider)
    provider.before["uploaded"] = away
    answered(rt, batch_id)
    del provider.before["uploaded"]

    deliver(rt, batch_id, 0, "w1")

    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    assert provider._provider.uploaded(batch_id, since=0.0) == [batch.input_file_id]


def test_a_batch_whose_steps_were_each_begun_once_looks_for_none(
    rt: Runtime, provider: Interfering, told: dict[str, Any]
) -> None:
    batch_id = sealed(rt, requests(2))
    answered(rt, batch_id)

    deliver(rt, batch_id, 0, "w1")

    assert state(rt, batch_id) == "DELIVERED"
    assert "uploaded" not in provider.calls
    assert files(provider, batch_id) == 0


def refused(status: int) -> Any:
    kind = AccountPaused if status == 403 else ProviderUnavailable

    def refuse(*_: object, **__: object) -> None:
        raise kind(f"Deleting was refused ({status}).", {"status": status})

    return refuse


@pytest.mark.parametrize("status", [403, 500])
def test_a_batch_is_closed_though_its_files_cannot_be_deleted(
    rt: Runtime,
    provider: Interfering,
    told: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    batch_id = sealed(rt, requests(2))
    answered(rt, batch_id)
    provider.before["delete_file"] = refused(status)
    with pytest.raises(ProviderError):
        deliver(rt, batch_id, 0, "w1")
    assert (len(told), state(rt, batch_id)) == (2, "FETCHED")

    monkeypatch.setattr(rt, "clock", SimulatedClock(rt.clock.now() + 3601))
    deliver(rt, batch_id, None, "w1")

    assert state(rt, batch_id) == "DELIVERED"
    assert f"({status})" in caplog.text


@pytest.mark.parametrize("status", [403, 500])
def test_a_create_in_doubt_does_not_wait_for_ever_for_its_file_to_be_deleted(
    rt: Runtime,
    provider: Interfering,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    given = requests(2)
    batch_id = sealed(rt, given)
    doubts = [CreateAmbiguous("cut before it was sent")]

    def doubted(*_: object, **__: object) -> None:
        if doubts:
            raise doubts.pop()

    provider.before["create"] = doubted
    provider.before["delete_file"] = refused(status)
    submit(rt, batch_id)
    assert state(rt, batch_id) == "SUBMITTING"

    monkeypatch.setattr(rt, "clock", SimulatedClock(rt.clock.now() + 3601))
    rt.redis.delete(keys.probe(rt.settings.namespace, "default"))
    submit(rt, batch_id)

    assert state(rt, batch_id) == "SUBMITTED"
    assert f"({status})" in caplog.text


def test_an_empty_batch_does_not_wait_for_ever_for_its_file_to_be_deleted(
    rt: Runtime, provider: Interfering, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = requests(1)
    batch_id = sealed(rt, given)
    provider.before["create"] = away
    submit(rt, batch_id)
    revoke(rt, [given[0].task_id], "w1")
    provider.before["delete_file"] = refused(500)
    submit(rt, batch_id)
    assert state(rt, batch_id) == "UPLOADED"

    monkeypatch.setattr(rt, "clock", SimulatedClock(rt.clock.now() + 3601))
    submit(rt, batch_id)

    assert state(rt, batch_id) == "CANCELLED"
