"""Batches are followed to their end, whatever the provider says of others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from lowtide.clock import SystemClock
from lowtide.providers import RemoteBatch
from lowtide.runtime import Runtime
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


class TestAnswersInNoFile:
    """The provider's first words of an end do not name the file with its answers."""

    @pytest.fixture
    def batch_id(self, rt: Runtime, provider: Interfering) -> str:
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
        later.ahead = 601.0

        track(rt, [batch_id])

        assert state_of(rt, batch_id) == "ENDED"
