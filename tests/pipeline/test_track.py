"""Batches are followed to their end, whatever the provider says of others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from lowtide.clock import SystemClock
from lowtide.errors import ProviderError, ProviderUnavailable, SettingsError
from lowtide.pipeline import Next
from lowtide.providers import RemoteBatch
from lowtide.request import Request
from lowtide.revoke import revoke
from lowtide.runtime import Runtime
from lowtide.settings import Account
from lowtide.submit import submit
from lowtide.track import track
from tests.pipeline.conftest import Interfering, requests, sealed
from tests.plugins.stack import until


class Later(SystemClock):
    """A clock that can be put ahead."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


def submitted(rt: Runtime) -> str:
    batch_id = sealed(rt, requests(1))
    submit(rt, batch_id)
    return batch_id


def completed(rt: Runtime, provider: Interfering, batch_id: str) -> str:
    """The provider's id of a batch, once it ended there."""
    name = provider_id(rt, batch_id)
    until(lambda: provider._provider.status(name).ended, f"{name} ended")
    return name


def provider_id(rt: Runtime, batch_id: str) -> str:
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    return str(batch.provider_batch_id)


def state_of(rt: Runtime, batch_id: str) -> str:
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    return str(batch.state)


def each(change: Callable[[RemoteBatch], RemoteBatch]) -> Callable[[Any], Any]:
    return lambda found: {name: change(remote) for name, remote in found.items()}


def test_a_status_that_cannot_be_read_stops_no_other_batch(
    rt: Runtime, provider: Interfering
) -> None:
    odd, fine = submitted(rt), submitted(rt)
    name = completed(rt, provider, odd)
    completed(rt, provider, fine)
    unread = ProviderUnavailable("500", {"status": 500})
    provider.after["statuses"] = lambda found: {**found, name: unread}

    after = track(rt, [odd, fine])

    assert (state_of(rt, odd), state_of(rt, fine)) == ("SUBMITTED", "ENDED")
    assert verbs(after) == {odd: "poll", fine: "fetch"}


def test_a_batch_that_the_provider_does_not_know_says_so_and_is_found_again(
    rt: Runtime, provider: Interfering, caplog: pytest.LogCaptureFixture
) -> None:
    """As while the account's key belongs to another project."""
    batch_id = submitted(rt)
    provider.after["statuses"] = lambda _found: {}

    for _ in range(2):
        assert verbs(track(rt, [batch_id])) == {batch_id: "poll"}

    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    assert "does not know the batch" in str(batch.reason)
    assert caplog.text.count("does not know the batch") == 1
    running = RemoteBatch(str(batch.provider_batch_id), "in_progress")
    provider.after["statuses"] = lambda _found: {running.id: running}
    track(rt, [batch_id])
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    assert (batch.state, batch.reason) == ("SUBMITTED", None)


def test_a_cancel_that_fails_stops_no_other_batch(rt: Runtime, provider: Interfering) -> None:
    def refuse(_name: str) -> None:
        raise ProviderError("It cannot be cancelled while it is finalizing.", {"status": 400})

    stuck, fine = submitted(rt), submitted(rt)
    name = completed(rt, provider, stuck)
    completed(rt, provider, fine)
    running = RemoteBatch(name, "finalizing")
    provider.after["statuses"] = lambda found: {**found, name: running}
    provider.before["cancel"] = refuse
    rt.clock = later = Later()
    later.ahead = 10 * 86_400.0

    track(rt, [stuck, fine])

    assert provider.calls.count("cancel") == 1
    assert (state_of(rt, stuck), state_of(rt, fine)) == ("SUBMITTED", "ENDED")


def running(provider: Interfering, name: str) -> None:
    """The provider runs the batch still."""
    provider.after["statuses"] = lambda _found: {name: RemoteBatch(name, "in_progress")}


def test_a_batch_whose_tasks_were_revoked_while_it_was_created_is_cancelled(
    rt: Runtime, provider: Interfering, told: dict[str, Any]
) -> None:
    given = requests(2)
    batch_id = sealed(rt, given)
    revoked = [each.task_id for each in given]
    provider.before["create"] = lambda *_, **__: revoke(rt, revoked, "w1")
    submit(rt, batch_id)
    running(provider, provider_id(rt, batch_id))
    assert "cancel" not in provider.calls

    track(rt, [batch_id])

    assert provider.calls.count("cancel") == 1


def test_a_cancel_that_the_provider_did_not_take_is_asked_for_again(
    rt: Runtime, provider: Interfering, told: dict[str, Any]
) -> None:
    def away(_name: str) -> None:
        raise ProviderUnavailable("500", {"status": 500})

    given = requests(2)
    batch_id = sealed(rt, given)
    submit(rt, batch_id)
    running(provider, provider_id(rt, batch_id))
    track(rt, [batch_id])
    assert "cancel" not in provider.calls
    provider.before["cancel"] = away
    with pytest.raises(ProviderUnavailable):
        revoke(rt, [each.task_id for each in given], "w1")
    del provider.before["cancel"]

    track(rt, [batch_id])

    assert provider.calls.count("cancel") == 2


def test_an_account_that_is_no_longer_set_stops_no_other(
    rt: Runtime, provider: Interfering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(rt.settings.accounts, "old", Account())
    gone = sealed(rt, of_account("old", requests(1)))
    submit(rt, gone)
    fine = submitted(rt)
    completed(rt, provider, fine)
    monkeypatch.delitem(rt.settings.accounts, "old")
    monkeypatch.setattr(rt, "provider", lambda name: fails(name) if name == "old" else provider)

    after = track(rt, [gone, fine])

    assert (state_of(rt, gone), state_of(rt, fine)) == ("SUBMITTED", "ENDED")
    assert verbs(after) == {gone: "poll", fine: "fetch"}


def verbs(after: dict[str, Next | None]) -> dict[str, str]:
    return {batch_id: step.verb for batch_id, step in after.items() if step is not None}


def of_account(name: str, given: list[Request]) -> list[Request]:
    return [structs.replace(r, lane=dataclasses.replace(r.lane, account=name)) for r in given]


def fails(name: str) -> Any:
    raise SettingsError(f"No provider account is named {name!r}.")


class TestAnswersInNoFile:
    """The provider's first words of an end do not name the file with its answers."""

    @pytest.fixture
    def batch_id(self, rt: Runtime, provider: Interfering) -> str:
        rt.settings.adopt_wait = 30.0
        batch_id = submitted(rt)
        completed(rt, provider, batch_id)
        unnamed = each(lambda remote: dataclasses.replace(remote, output_file_id=None))
        provider.after["statuses"] = unnamed
        return batch_id

    def test_it_is_asked_again_until_it_names_it(
        self, rt: Runtime, provider: Interfering, batch_id: str
    ) -> None:
        after = track(rt, [batch_id])[batch_id]

        assert state_of(rt, batch_id) == "SUBMITTED"
        assert after is not None
        assert after.verb == "poll"
        assert after.at == pytest.approx(rt.clock.now(), abs=2)
        del provider.after["statuses"]
        track(rt, [batch_id])
        batch = rt.ledger.batch(batch_id)
        assert batch is not None
        assert batch.state == "ENDED"
        assert batch.output_file_id

    def test_it_is_not_asked_for_ever(
        self, rt: Runtime, provider: Interfering, batch_id: str
    ) -> None:
        track(rt, [batch_id])
        rt.clock = later = Later()
        later.ahead = rt.settings.adopt_wait + 1.0

        track(rt, [batch_id])

        assert state_of(rt, batch_id) == "ENDED"
