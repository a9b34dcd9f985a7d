"""Metrics for Prometheus, read from Redis and the ledger when they are asked for.

Nothing is counted in a process, so any number of workers and pages tells the same numbers. The
counters fall when old batches are purged from the ledger; Prometheus takes that for a restart.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from lowtide import control, quiet, standing, tell, webhooks
from lowtide.errors import LowtideError
from lowtide.held import LaneStatus

if TYPE_CHECKING:
    from lowtide.ledger.lookups import Histogram
    from lowtide.runtime import Runtime

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TURNAROUND_BOUNDS = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 43200.0, 86400.0)
DELAY_BOUNDS = (10.0, *TURNAROUND_BOUNDS, 172800.0)
# The ledger is asked at most this share of the time, however often metrics are.
_ASKING_SHARE = 0.05
_SHORTEST = 5.0


def render(rt: Runtime) -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(registry(rt))


def registry(rt: Runtime) -> CollectorRegistry:
    """A registry with lowtide's metrics; the same one for each call with the same runtime."""
    with _lock:
        known = _registries.get(id(rt))
        if known is None or known[0] is not rt:
            made = CollectorRegistry(auto_describe=False)
            made.register(LowtideCollector(rt))
            _registries[id(rt)] = known = (rt, made)
        return known[1]


def fill(lane: LaneStatus, now: float) -> float:
    """How near a lane's buffer is to the threshold that it is nearest to, from 0 to 1."""
    if not lane.requests:
        return 0.0
    limits = lane.thresholds
    age = now - (lane.opened_at or now)
    shares = (
        lane.requests / limits.max_requests,
        lane.size / limits.max_bytes,
        lane.tokens / limits.max_tokens,
        age / limits.max_wait if limits.max_wait else 1.0,
    )
    return min(1.0, max(0.0, *shares))


class LowtideCollector(Collector):
    """Reads the metrics of one deployment; add it to a registry of your own if you have one."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._kept: list[Metric] = []
        self._fresh_until = -1.0
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering it asks nobody."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric; what cannot be asked is left out, and `lowtide_up` says so."""
        up = GaugeMetricFamily("lowtide_up", "Whether the part can be asked.", labels=["part"])
        for part, read in (("redis", self._redis), ("ledger", self._ledger)):
            try:
                found = list(read())
            except (RedisError, LowtideError, OSError):
                up.add_metric([part], 0)
            else:
                up.add_metric([part], 1)
                yield from found
        yield up

    def _redis(self) -> Iterator[Metric]:
        rt = self._rt
        now = rt.clock.now()
        lanes = rt.buffer.lanes()
        yield _gauge("lane_requests", "Requests in the open buffer.", "lane", lanes, _requests)
        yield _gauge("lane_bytes", "Bytes in the open buffer.", "lane", lanes, _size)
        yield _gauge(
            "lane_fill_ratio",
            "How near the open buffer is to its nearest threshold.",
            "lane",
            lanes,
            lambda lane: fill(lane, now),
        )
        yield _gauge(
            "lane_age_seconds",
            "Age of the open buffer.",
            "lane",
            lanes,
            lambda lane: max(0.0, now - (lane.opened_at or now)),
        )
        sealed = rt.buffer.sealed()
        yield _one("sealed_batches", "Batches sealed and not in the ledger.", len(sealed))
        oldest = min((batch.sealed_at for batch in sealed), default=now)
        yield _one("sealed_age_seconds", "Age of the oldest of them.", max(0.0, now - oldest))
        timers = rt.timers.waiting()
        yield _one("timers", "Timers that are set.", timers.total)
        yield _one("timers_due", "Timers that are due and that nobody took.", timers.due)
        yield _one("timers_late_seconds", "How late the longest due of them is.", timers.late)
        failures = CounterMetricFamily(
            "lowtide_failures",
            "Failures met and waited out, by what failed.",
            labels=["kind"],
        )
        for kind, count in quiet.counts(rt).items():
            failures.add_metric([kind], count)
        yield failures
        paused = GaugeMetricFamily(
            "lowtide_paused", "1 for each lane or account that is paused.", labels=["subject"]
        )
        for subject in control.pauses(rt):
            paused.add_metric([subject], 1)
        yield paused
        hooks = CounterMetricFamily(
            "lowtide_webhooks", "Webhooks that came, by what became of them.", labels=["result"]
        )
        for result, count in webhooks.counts(rt).items():
            hooks.add_metric([result], count)
        yield hooks
        told = CounterMetricFamily(
            "lowtide_told",
            "Results that destinations were told of, by whether they accepted them.",
            labels=["destination", "result"],
        )
        for (destination, result), count in tell.counts(rt).items():
            told.add_metric([destination, result], count)
        yield told

    def _ledger(self) -> Iterable[Metric]:
        clock = self._rt.clock
        with self._lock:
            if clock.monotonic() >= self._fresh_until:
                began = clock.monotonic()
                self._kept = list(self._read_ledger())
                took = clock.monotonic() - began
                self._fresh_until = clock.monotonic() + max(_SHORTEST, took / _ASKING_SHARE)
            return self._kept

    def _read_ledger(self) -> Iterator[Metric]:
        rt = self._rt
        batches = GaugeMetricFamily(
            "lowtide_batches", "Batches by lane and state.", labels=["lane", "state"]
        )
        requests = GaugeMetricFamily(
            "lowtide_batch_requests", "Requests in these batches.", labels=["lane", "state"]
        )
        for lane, state, count, inside in rt.ledger.batch_counts():
            batches.add_metric([lane, state], count)
            requests.add_metric([lane, state], inside)
        yield batches
        yield requests
        yield from self._outbox()
        yield from self._waits()
        yield from self._money()
        yield _histograms(
            "lowtide_turnaround_seconds",
            "From a batch's submission to its end at the provider.",
            "lane",
            rt.ledger.turnaround_histogram(TURNAROUND_BOUNDS),
            TURNAROUND_BOUNDS,
        )
        yield _histograms(
            "lowtide_delay_seconds",
            "From the record of a request to its outcome.",
            "task",
            rt.ledger.delay_histogram(DELAY_BOUNDS),
            DELAY_BOUNDS,
        )

    def _outbox(self) -> Iterator[Metric]:
        rt = self._rt
        now = rt.clock.now()
        waiting = GaugeMetricFamily(
            "lowtide_outbox_results",
            "Results that a destination is still to be told of.",
            labels=["destination"],
        )
        age = GaugeMetricFamily(
            "lowtide_outbox_age_seconds", "Age of the oldest of them.", labels=["destination"]
        )
        found = {each.destination: each for each in rt.ledger.backlogs()}
        for name in sorted({*standing.names(rt), *found}):
            backlog = found.get(name)
            waiting.add_metric([name], backlog.waiting if backlog else 0)
            age.add_metric([name], max(0.0, now - backlog.since) if backlog else 0.0)
        yield waiting
        yield age

    def _waits(self) -> Iterator[Metric]:
        rt = self._rt
        now = rt.clock.now()
        overdue = GaugeMetricFamily(
            "lowtide_overdue_batches",
            "Batches at the provider past the end of its window.",
            labels=["lane"],
        )
        oldest = GaugeMetricFamily(
            "lowtide_open_batch_age_seconds", "Age of the oldest unfinished batch.", labels=["lane"]
        )
        late: dict[str, int] = {}
        ages: dict[str, float] = {}
        for batch in rt.ledger.find_batches(states=_UNFINISHED, limit=10_000):
            ages[batch.lane] = max(ages.get(batch.lane, 0.0), now - batch.sealed_at)
            past = batch.expires_at is not None and batch.expires_at < now
            late[batch.lane] = late.get(batch.lane, 0) + int(past)
        for lane, age in ages.items():
            oldest.add_metric([lane], age)
            overdue.add_metric([lane], late[lane])
        yield oldest
        yield overdue

    def _money(self) -> Iterator[Metric]:
        outcomes = CounterMetricFamily(
            "lowtide_outcomes", "Requests by how they ended.", labels=["task", "outcome"]
        )
        tokens = CounterMetricFamily("lowtide_tokens", "Tokens used.", labels=["task", "kind"])
        cost = CounterMetricFamily("lowtide_cost_usd", "What was paid.", labels=["task"])
        full = CounterMetricFamily(
            "lowtide_full_price_usd", "What the same would cost without batches.", labels=["task"]
        )
        unpriced = CounterMetricFamily(
            "lowtide_unpriced", "Answers whose price is not known.", labels=["task"]
        )
        for row in self._rt.ledger.costs("task"):
            for outcome in ("answered", "failed", "revoked"):
                outcomes.add_metric([row.key, outcome], getattr(row, outcome))
            for kind in ("input", "cached", "output", "reasoning"):
                tokens.add_metric([row.key, kind], getattr(row, f"{kind}_tokens"))
            cost.add_metric([row.key], row.cost)
            full.add_metric([row.key], row.full_price)
            unpriced.add_metric([row.key], row.unpriced)
        yield from (outcomes, tokens, cost, full, unpriced)


_UNFINISHED = ("RECORDED", "UPLOADED", "SUBMITTING", "SUBMITTED", "ENDED", "FETCHED", "HELD")
_registries: dict[int, tuple[Runtime, CollectorRegistry]] = {}
_lock = threading.Lock()


def _requests(lane: LaneStatus) -> float:
    return lane.requests


def _size(lane: LaneStatus) -> float:
    return lane.size


def _one(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"lowtide_{name}", text, value=value)


def _gauge(
    name: str,
    text: str,
    label: str,
    lanes: Iterable[LaneStatus],
    value: Callable[[LaneStatus], float],
) -> Metric:
    made = GaugeMetricFamily(f"lowtide_{name}", text, labels=[label])
    for lane in lanes:
        made.add_metric([lane.lane], value(lane))
    return made


def _histograms(
    name: str, text: str, label: str, found: dict[str, Histogram], bounds: Iterable[float]
) -> Metric:
    made = HistogramMetricFamily(name, text, labels=[label])
    edges = [f"{bound:g}" if bound < 1e5 else str(bound) for bound in bounds]
    for key, histogram in found.items():
        counted = [(edge, float(n)) for edge, n in zip(edges, histogram.counts, strict=True)]
        made.add_metric([key], [*counted, ("+Inf", float(histogram.total))], histogram.sum)
    return made
