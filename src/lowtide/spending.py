"""Spend caps: what all calls, a lane or a task may cost in a UTC day; batches beyond it are held.

Before a batch is sent, what it is expected to cost is set aside in the ledger, in one step with
the look whether a cap leaves room for it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
from celery.utils.log import get_logger

from lowtide import limits, prices, quiet, turns
from lowtide.calls import MODERATIONS
from lowtide.ledger import Cap, Load
from lowtide.request import unpack
from lowtide.tokens import Usage, most_written

if TYPE_CHECKING:
    from lowtide.lane import Lane
    from lowtide.ledger import BatchRow, Lease
    from lowtide.runtime import Runtime
    from lowtide.settings import Settings

logger = get_logger(__name__)
_DAY = 86_400.0
# Caps are raised, and estimates that were too high give room back when their batch is closed.
_LOOK_AGAIN = 60.0
_LEARNED_FOR = 60.0
# A batch larger than a whole cap goes in parts of this share of it, so that a part fits into what
# a day has left.
_PART = 0.25
_written: dict[str, tuple[dict[str, float], float]] = {}


@dataclass(frozen=True, slots=True)
class Part:
    """A batch is dearer than a whole cap: it is to be cut, or to wait where that cannot be.

    Attributes:
        tokens: Estimated input tokens of a part that fits.
    """

    tokens: int
    wait: limits.Wait


@dataclass(frozen=True, slots=True)
class Apart:
    """Requests of some tasks have to wait; those of others in the batch need not.

    Attributes:
        tasks: Names of the tasks that are over their cap.
        reason: Why, for people.
    """

    tasks: tuple[str, ...]
    reason: str


def check(rt: Runtime, lease: Lease, batch: BatchRow) -> limits.Wait | Part | Apart | None:
    """Whether caps let a batch be sent; None when they do, and its estimate is set aside."""
    if not is_capped(rt.settings):
        return None
    lane = batch.to_lane()
    loads = rt.ledger.loads(batch.id)
    caps = caps_of(rt.settings, lane, loads)
    if not caps:
        return None
    for cap in caps:
        queue = turns.money(cap.name, _day(rt) - 1)
        if not turns.is_next(rt, queue, batch):
            reason = "Batches that the spend cap held back yesterday have their turn before it."
            return limits.Wait(reason, _LOOK_AGAIN, queue)
    estimate = _estimate(rt, batch, lane, loads)
    over = rt.ledger.reserve(lease, estimate, caps, _today(rt))
    if not over:
        return None
    held = [task for task in loads if any(_holds(cap, lane, task) for cap in over)]
    cap, used = next(iter(over.items()))
    need = sum(usd for task, usd in estimate.items() if _holds(cap, lane, task))
    reason = _reason(cap, used, need)
    if len(held) < len(loads):
        return Apart(tuple(held), reason)
    left = _DAY - rt.clock.now() % _DAY
    wait = limits.Wait(reason, min(left, _LOOK_AGAIN), turns.money(cap.name, _day(rt)))
    if need > cap.limit > 0:
        return Part(max(1, int(batch.tokens * cap.limit * _PART / need)), wait)
    return wait


def call_next(rt: Runtime, batch: BatchRow) -> None:
    """Has those looked at now that are next under the caps of a batch that had its turn."""
    if not is_capped(rt.settings):
        return
    for cap in caps_of(rt.settings, batch.to_lane(), rt.ledger.loads(batch.id)):
        turns.call_next(rt, turns.money(cap.name, _day(rt) - 1))


def exhausted(rt: Runtime, lane: Lane, tasks: Collection[str]) -> dict[str, str]:
    """Task → why nothing more may be spent on it today; those with room are left out."""
    caps = caps_of(rt.settings, lane, tasks)
    if not caps:
        return {}
    full = {
        cap: used for cap, used in rt.ledger.spent(caps, _today(rt)).items() if _is_full(cap, used)
    }
    return {
        task: _reason(cap, used, None)
        for cap, used in full.items()
        for task in tasks
        if _holds(cap, lane, task)
    }


def is_capped(settings: Settings) -> bool:
    """Whether any spend cap is set."""
    if settings.spend_cap_day is not None or settings.task_spend_caps:
        return True
    return any(override.spend_cap_day is not None for override in settings.lanes.values())


def caps_of(settings: Settings, lane: Lane, tasks: Collection[str]) -> list[Cap]:
    """The caps that requests of some tasks in a lane are under."""
    found = []
    if settings.spend_cap_day is not None:
        found.append(Cap("", settings.spend_cap_day))
    whole = lane.whole
    for field, name in (("account", lane.account), ("model", lane.model), ("lane", whole.key)):
        override = settings.lanes.get(name)
        if override is not None and override.spend_cap_day is not None:
            found.append(Cap(f"{field} {name}", override.spend_cap_day, **{field: name}))
    for task in tasks:
        limit = settings.task_spend_caps.get(task)
        if limit is not None:
            found.append(Cap(f"task {task}", limit, task=task))
    return found


def is_priced(settings: Settings, lane: Lane) -> bool:
    """Whether a cap can hold the lane: what it costs is known, or it costs nothing."""
    if lane.endpoint == MODERATIONS:
        return True
    return prices.price_of(settings, lane, Usage(1_000, 0, 1_000), tier="batch") is not None


def _estimate(
    rt: Runtime, batch: BatchRow, lane: Lane, loads: Mapping[str, Load]
) -> dict[str, float]:
    """Task → what its requests in the batch should cost; nothing where the price is unknown."""
    if not is_priced(rt.settings, lane):
        quiet.warn(
            logger,
            "price",
            "The price of %s is unknown, so that no spend cap holds it; set LOWTIDE_PRICES.",
            lane.key,
        )
        return {}
    ratio = limits.ratio_of(rt, batch.model)
    written = _answers(rt, batch, lane, loads)
    found = {}
    for task, load in loads.items():
        # Of one request: with some models the price goes by its length.
        usage = Usage(int(load.tokens * ratio / load.requests), 0, round(written[task]))
        one = prices.price_of(rt.settings, lane, usage, tier="batch")
        found[task] = (one or 0.0) * load.requests
    return found


def _answers(
    rt: Runtime, batch: BatchRow, lane: Lane, loads: Mapping[str, Load]
) -> dict[str, float]:
    """Task → output tokens of one answer: as learned, else the most it may have, else as its
    input has.
    """
    learned, at = _written.get(batch.model, ({}, 0.0))
    if time.monotonic() - at > _LEARNED_FOR or not at:
        learned = rt.ledger.written(batch.model)
        _written[batch.model] = (learned, time.monotonic())
    unknown = {task for task in loads if task not in learned}
    sums = dict.fromkeys(unknown, 0)
    for chunk in rt.ledger.lines(batch.id) if unknown else ():
        for custom_id, blob in chunk:
            request = unpack(custom_id, lane, blob)
            if request.task in unknown:
                most = most_written(lane.endpoint, orjson.loads(request.body))
                sums[request.task] += request.tokens if most is None else most
    return {
        task: sums[task] / load.requests if task in unknown else learned[task]
        for task, load in loads.items()
    }


def _reason(cap: Cap, used: float, need: float | None) -> str:
    what = f" for {cap.name}" if cap.name else ""
    wants = "" if need is None else f"; this batch needs about ${need:,.2f}"
    return f"spend cap of ${cap.limit:,.2f} a day{what}: ${used:,.2f} is spent or on its way{wants}"


def _is_full(cap: Cap, used: float) -> bool:
    return used >= cap.limit


def _holds(cap: Cap, lane: Lane, task: str) -> bool:
    return cap.holds(lane.account, lane.model, lane.key, task)


def _today(rt: Runtime) -> float:
    return _day(rt) * _DAY


def _day(rt: Runtime) -> int:
    return int(rt.clock.now() // _DAY)
