"""Lanes that nobody uses any more are forgotten, and no others."""

from __future__ import annotations

import pytest
from msgspec import structs

from lowtide import control, idle, keys
from lowtide.clock import SimulatedClock
from lowtide.lane import Lane
from lowtide.request import Request
from lowtide.runtime import Runtime
from lowtide.submit import submit
from lowtide.sweep import sweep
from tests.pipeline.conftest import LANE, Interfering, ended, requests, sealed


def of_tenant(name: str, count: int = 1) -> list[Request]:
    lane = Lane(LANE.account, LANE.endpoint, LANE.model, name)
    return [structs.replace(each, lane=lane) for each in requests(count)]


def known(rt: Runtime) -> set[str]:
    return {status.lane.rpartition(":")[2] for status in rt.buffer.lanes()}


def later(rt: Runtime, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(rt, "clock", SimulatedClock(rt.clock.now() + seconds))
    rt.redis.delete(keys.idle(rt.settings.namespace))


@pytest.mark.leaves_keys("*")
def test_a_lane_is_forgotten_when_its_last_batch_ended_long_ago(
    rt: Runtime, provider: Interfering, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = sealed(rt, of_tenant("gone"))
    submit(rt, gone)
    ended(rt, gone)
    submit(rt, sealed(rt, of_tenant("sent")))
    control.pause(rt, "default")
    submit(rt, sealed(rt, of_tenant("held")))
    sealed(rt, of_tenant("sealed"))
    rt.buffer.append(of_tenant("open"))
    learned = keys.turnarounds(rt.settings.namespace)
    assert rt.redis.hlen(learned) == 1

    later(rt, monkeypatch, 13 * 86_400.0)
    sweep(rt)
    assert known(rt) == {"gone", "sent", "held", "sealed", "open"}
    later(rt, monkeypatch, 2 * 86_400.0)
    sweep(rt)

    assert known(rt) == {"sent", "held", "sealed", "open"}
    assert rt.redis.hlen(learned) == 0
    rt.buffer.append(of_tenant("gone"))
    assert "gone" in known(rt)


def test_a_lane_that_is_used_again_meanwhile_stays(rt: Runtime) -> None:
    rt.buffer.append(of_tenant("back"))

    assert rt.buffer.forget_lanes([status.lane for status in rt.buffer.lanes()]) == 0

    assert known(rt) == {"back"}


def test_they_are_looked_for_once_an_hour(rt: Runtime) -> None:
    lane = sealed(rt, of_tenant("a"))
    rt.buffer.drop(lane)
    assert idle.forget(rt) == 1
    rt.buffer.drop(sealed(rt, of_tenant("b")))

    assert idle.forget(rt) == 0
    assert known(rt) == {"b"}
