"""Any order of verbs, losses and repairs, against a model of a few lines."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from redis import Redis

from lowtide.buffer import Buffer
from lowtide.clock import SimulatedClock
from lowtide.lane import Lane
from lowtide.request import Request
from lowtide.timers import Timers
from tests.plugins.redis import leaked_keys
from tests.redis_side.conftest import settings as lowtide_settings
from tests.redis_side.support import LANE, OTHER, START, ask

MOST, MOST_BYTES, MOST_TOKENS, MAX_WAIT = 4, 600, 50, 60.0
TASKS = [f"t{number:02}" for number in range(30)]

lanes = st.sampled_from([LANE, OTHER])
asked = st.builds(
    lambda name, lane, size, tokens, wait: (name, lane, size, tokens, wait),
    st.sampled_from(TASKS),
    lanes,
    st.sampled_from([120, 200, 599, 600, 700]),
    st.sampled_from([0, 1, 25, 50, 80]),
    st.sampled_from([None, None, -5.0, 20.0, 500.0]),
)


@dataclass
class Open:
    """The model of an open buffer."""

    due: float
    lines: dict[str, Request] = field(default_factory=dict)

    @property
    def totals(self) -> tuple[int, int, int]:
        requests = self.lines.values()
        return len(requests), sum(r.line_size for r in requests), sum(r.tokens for r in requests)


class BufferMachine(RuleBasedStateMachine):
    """The buffers of two lanes; tasks are few, so that the same request comes often."""

    def __init__(self, redis: Redis) -> None:
        super().__init__()
        redis.flushdb()
        self.redis = redis
        self.clock = SimulatedClock(START)
        options = lowtide_settings(
            max_requests=MOST, max_bytes=MOST_BYTES, max_tokens=MOST_TOKENS, max_wait=MAX_WAIT
        )
        self.buffer = Buffer(redis, options, self.clock)
        self.timers = Timers(redis, options, self.clock)
        self.seen: set[str] = set()
        self.open: dict[Lane, Open] = {}
        self.sealed: dict[str, tuple[Lane, dict[str, Request]]] = {}
        self.harmed = False

    # What callers do.

    @rule(asked=st.lists(asked, max_size=12))
    def append(self, asked: list[tuple[str, Lane, int, int, float | None]]) -> None:
        now = self.clock.now()
        requests = [
            ask(name, lane=lane, size=size, tokens=tokens, deadline=wait and now + wait)
            for name, lane, size, tokens, wait in asked
        ]
        by_lane = [
            r
            for lane in dict.fromkeys(r.lane for r in requests)
            for r in requests
            if r.lane == lane
        ]
        fresh, full = [], []
        for request in by_lane:
            if request.custom_id not in self.seen:
                self.seen.add(request.custom_id)
                fresh.append(request)
                full += self._model_append(request)

        said = self.buffer.append(requests)

        assert said.added == len(fresh)
        assert said.refused == len(requests) - len(fresh)
        assert len(said.sealed) == len(full)
        self.sealed.update(zip(said.sealed, full, strict=True))

    def _model_append(self, request: Request) -> list[tuple[Lane, dict[str, Request]]]:
        lane, full = request.lane, []
        if lane in self.open:
            _, size, tokens = self.open[lane].totals
            if size + request.line_size > MOST_BYTES or tokens + request.tokens > MOST_TOKENS:
                full.append((lane, self.open.pop(lane).lines))
        now = self.clock.now()
        buffer = self.open.setdefault(lane, Open(now + MAX_WAIT))
        buffer.lines[request.custom_id] = request
        if request.deadline is not None and request.deadline < buffer.due:
            buffer.due = max(now, request.deadline)
        count, size, tokens = buffer.totals
        if count >= MOST or size >= MOST_BYTES or tokens >= MOST_TOKENS:
            full.append((lane, self.open.pop(lane).lines))
        return full

    @rule(lane=lanes, only_if_due=st.booleans())
    def seal(self, lane: Lane, only_if_due: bool) -> None:
        buffer = self.open.get(lane)
        closes = buffer is not None and (not only_if_due or buffer.due <= self.clock.now())

        batch_id = self.buffer.seal(lane.key, only_if_due=only_if_due)

        assert (batch_id is not None) == closes
        if batch_id is not None:
            self.sealed[batch_id] = (lane, self.open.pop(lane).lines)

    @rule(lane=lanes, names=st.lists(st.sampled_from(TASKS), max_size=6))
    def remove(self, lane: Lane, names: list[str]) -> None:
        ids = [f"{name}.0.0" for name in names]
        waiting = self.open[lane].lines if lane in self.open else {}
        there = set(ids) & waiting.keys()

        assert sorted(self.buffer.remove(lane.key, ids)) == sorted(there)

        for name in there:
            del waiting[name]
        if lane in self.open and not waiting:
            del self.open[lane]

    @rule()
    def drop(self) -> None:
        if self.sealed:
            batch_id = min(self.sealed)
            self.buffer.drop(batch_id)
            del self.sealed[batch_id]
            self.timers.disarm("submit", batch_id)

    @rule(seconds=st.sampled_from([0.5, 19.0, 61.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def tick(self) -> None:
        """A replica that claims what is due and seals at once."""
        for due in self.timers.claim(100, 30):
            if due.verb == "seal":
                self.seal(Lane.parse(due.id), True)

    # What goes wrong, and what repairs it.

    @rule(name=st.sampled_from(["timers", "lanes", "sealed"]))
    def an_index_is_lost(self, name: str) -> None:
        self.redis.delete("{lowtide}:" + name)
        self.harmed = True

    @rule(lane=lanes)
    def a_header_is_lost(self, lane: Lane) -> None:
        if self.redis.delete(f"{{lowtide}}:lane:{lane.key}"):
            due = self.timers.due_at("seal", lane.key)
            self.open[lane].due = self.clock.now() if due is None else due
            self.rebuild()

    @rule()
    def rebuild(self) -> None:
        self.buffer.rebuild(scan=True)
        self.harmed = False

    @rule()
    def scripts_are_lost(self) -> None:
        self.redis.script_flush()

    # What holds after every step.

    @invariant()
    def the_lines_are_those_of_the_model(self) -> None:
        client = self.redis
        for lane in (LANE, OTHER):
            stored = client.hkeys(f"{{lowtide}}:lane:{lane.key}:lines")
            waiting = self.open[lane].lines if lane in self.open else {}
            assert {name.decode() for name in stored} == waiting.keys()  # type: ignore[union-attr]
        for batch_id, (_, lines) in self.sealed.items():
            got = [name for page in self.buffer.lines(batch_id, 2) for name, _ in page]
            assert sorted(got) == sorted(lines)

    @invariant()
    def a_task_is_where_its_line_is(self) -> None:
        batches = {name: batch_id for batch_id, (_, lines) in self.sealed.items() for name in lines}
        for name, where in zip(TASKS, self.buffer.where(TASKS), strict=True):
            custom_id = f"{name}.0.0"
            assert (where is not None) == (custom_id in self.seen)
            if where is not None and custom_id in batches and not self._renamed(where.batch_id):
                assert where.batch_id == batches[custom_id]

    def _renamed(self, batch_id: str) -> bool:
        """Whether the header that named this batch was lost before it was sealed."""
        return batch_id not in self.sealed

    @invariant()
    def the_indexes_are_whole(self) -> None:
        if self.harmed:
            return
        filled = {
            status.lane: (status.requests, status.size, status.tokens)
            for status in self.buffer.lanes()
            if status.batch_id
        }
        assert filled == {lane.key: buffer.totals for lane, buffer in self.open.items()}
        assert {b.batch_id: b.requests for b in self.buffer.sealed()} == {
            batch_id: len(lines) for batch_id, (_, lines) in self.sealed.items()
        }
        now = self.clock.now()
        for lane, buffer in self.open.items():
            due = self.timers.due_at("seal", lane.key)
            assert due is not None
            assert due <= max(buffer.due, now + 30)  # 30 s is the lease of `tick`
        for batch_id in self.sealed:
            assert self.timers.due_at("submit", batch_id) is not None
        assert leaked_keys(self.redis, []) == []


def test_buffer_against_its_model(redis: Redis) -> None:
    class Machine(BufferMachine):
        def __init__(self) -> None:
            super().__init__(redis)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=50,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    # The last example may have ended with an index lost, whose lines then look forgotten.
    redis.flushdb()
