"""Any sequence of calls, steps, crashes and faults: the invariants hold after each of them.

The code is the real one, Redis and SQLite too; time, provider and broker are in this process.
"""

from __future__ import annotations

import itertools
import os
import secrets
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from celery import Celery
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis
from sqlalchemy import select

from lowtide import buffer, failpoints, finishing, limits, pipeline, runtime
from lowtide.clock import SimulatedClock
from lowtide.lane import Lane
from lowtide.ledger.tables import BATCHES, REQUESTS
from lowtide.request import Request
from lowtide.resume import Resumed, Resumption
from lowtide.timers import Timers
from tests.chaos.scripted import ScriptedProvider, answer
from tests.plugins.redis import leaked_keys

LEASE, ADOPT_WAIT = 60.0, 120.0
EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "12"))
PLACES = [place for place in failpoints.PLACES if place not in ("accept.taken", "deliver.stored")]


class Crash(BaseException):
    """The process ends here; nothing after this happens, no `finally` either."""


class Replica(runtime.Runtime):
    """A runtime with time, provider and broker of the machine's."""

    provider_here: ScriptedProvider
    messages: list[tuple[str, tuple[Any, ...]]]

    @property
    def timers(self) -> Timers:
        return Timers(self.redis, self.settings, self.clock)

    def provider(self, account: str) -> Any:
        return self.provider_here

    def send(self, verb: str, *args: Any) -> None:
        self.messages.append((verb, args))


class Backend:
    """Stands for the result backend and Celery's tracer: each task ends once, with its answer."""

    def __init__(self, prompts: dict[str, str], steps: dict[str, int]) -> None:
        self.ended: Counter[str] = Counter()
        self.failed: set[str] = set()
        self._prompts = prompts
        self._steps = steps

    def resume(
        self, _app: Celery, items: Sequence[Resumption], _host: str, **_: Any
    ) -> list[Resumed]:
        return [self._resume(item) for item in items]

    def _resume(self, item: Resumption) -> Resumed:
        request = item.request
        if self.ended[request.task_id]:
            return Resumed(item.custom_id, "SKIPPED")
        if isinstance(item.outcome, Exception):
            self.ended[request.task_id] += 1
            self.failed.add(request.task_id)
            return Resumed(item.custom_id, "FAILURE")
        said = item.outcome[1]["choices"][0]["message"]["content"]
        assert said == self._prompts[item.custom_id], "an answer went to another task"
        step = int(item.custom_id.rsplit(".", 1)[1]) + 1
        if step < self._steps[request.task_id]:
            return Resumed(item.custom_id, "CONTINUED", self.request(request.task_id, step))
        self.ended[request.task_id] += 1
        return Resumed(item.custom_id, "SUCCESS")

    def request(self, task_id: str, step: int) -> Request:
        custom_id = f"{task_id}.0.{step}"
        prompt = self._prompts[custom_id] = f"prompt of {custom_id}"
        body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": prompt}]}
        lane = Lane("default", "/v1/chat/completions", "gpt-5-mini")
        return Request(custom_id, task_id, "t", lane, orjson.dumps(body), b"envelope", 20)


class Machine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self, redis: Redis, url: str, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        _same_each_time(patch)
        redis.flushdb()
        self.redis = redis
        self.folder = TemporaryDirectory()
        self.clock = SimulatedClock()
        self.provider = ScriptedProvider(self.clock)
        self.prompts: dict[str, str] = {}
        self.steps: dict[str, int] = {}
        self.backend = Backend(self.prompts, self.steps)
        self.names = itertools.count()
        self.rt = self._replica(url)
        self.dies_at: str | None = None
        self.dead = False
        patch.setattr(failpoints, "reach", self._reach)
        patch.setattr(finishing, "resume", self.backend.resume)
        release = self.rt.ledger.release
        patch.setattr(self.rt.ledger, "release", lambda x: None if self.dead else release(x))

    def _replica(self, url: str) -> Replica:
        app = Celery(f"machine-{uuid.uuid4().hex}", broker="memory://", set_as_current=False)
        app.conf.lowtide = {
            "redis_url": url,
            "home": Path(self.folder.name),
            "max_wait": 30,
            "max_requests": 5,
            "lease": LEASE,
            "adopt_wait": ADOPT_WAIT,
            "max_attempts": 3,
            "slice_requests": 2,
            "retry_delay": 5,
        }
        rt = Replica(app, self.clock)
        rt.provider_here, rt.messages = self.provider, []
        app.__dict__["lowtide_runtime"] = rt
        pipeline.register(app)
        return rt

    def _reach(self, place: str) -> None:
        if place == self.dies_at:
            self.dead, self.dies_at = True, None
            raise Crash(place)

    @contextmanager
    def mortal(self) -> Iterator[None]:
        """A process of its own, which may die in the block."""
        self.dead = False
        try:
            yield
        except Crash:
            pass
        finally:
            self.dead = False

    # ---- what goes on
    @rule(count=st.integers(1, 7), steps=st.integers(1, 3))
    def call(self, count: int, steps: int) -> None:
        for _ in range(count):
            task_id = f"task{next(self.names)}"
            self.steps[task_id] = steps
            request = self.backend.request(task_id, 0)
            while True:  # Celery delivers the message again until it is acknowledged
                with self.mortal():
                    self.rt.accept([request])
                    break

    @rule()
    def redelivered(self) -> None:
        """The message of a call that has not ended comes again."""
        waiting = [task for task in self.steps if not self.backend.ended[task]]
        with self.mortal():
            self.rt.accept([self.backend.request(task, 0) for task in waiting[:3]])

    @rule(seconds=st.sampled_from([0.5, 5.0, 31.0, LEASE + 1, ADOPT_WAIT + 1]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def tick(self) -> None:
        self.rt.timers.arm("sweep", "all", self.clock.now(), if_absent=True)
        with self.mortal():
            due = self.rt.timers.claim(100, LEASE)
            self._reach("tick.claimed")
            for entry in due:
                self.rt.send(entry.verb, entry.id)

    @precondition(lambda self: self.rt.messages)
    @rule(data=st.data(), twice=st.booleans())
    def message(self, data: st.DataObject, twice: bool) -> None:
        """Any of the messages arrives, perhaps twice."""
        chosen = data.draw(st.integers(0, len(self.rt.messages) - 1))
        self._take(chosen, keep=twice)

    @rule(count=st.integers(1, 30))
    def messages(self, count: int) -> None:
        for _ in range(min(count, len(self.rt.messages))):
            self._take(0)

    def _take(self, at: int, *, keep: bool = False) -> None:
        verb, args = self.rt.messages[at] if keep else self.rt.messages.pop(at)
        with self.mortal():
            self.rt.app.tasks[f"lowtide.{verb}"](*args)

    @precondition(lambda self: self.provider.running())
    @rule(
        data=st.data(),
        fates=st.lists(
            st.sampled_from(["answered", "answered", "failed", "refused", "silent"]),
            min_size=1,
            max_size=5,
        ),
        status=st.sampled_from(["completed", "completed", "expired", "cancelled"]),
    )
    def batch_ends(self, data: st.DataObject, fates: list[str], status: str) -> None:
        remote = data.draw(st.sampled_from(self.provider.running()))
        self.provider.run(remote, fates, status)

    @rule(
        rounds=st.integers(1, 6),
        fates=st.lists(st.sampled_from(["answered", "failed", "silent"]), min_size=1, max_size=4),
    )
    def goes_on(self, rounds: int, fates: list[str]) -> None:
        """Replicas and provider work for a while, with whatever is planned to go wrong."""
        for _ in range(rounds):
            self.clock.advance(31.0)
            for remote in self.provider.running():
                self.provider.run(remote, fates, "completed")
            self.tick()
            for _ in range(len(self.rt.messages)):
                self._take(0)

    @rule(
        place=st.sampled_from(PLACES),
        how=st.sampled_from(["done", "answer lost", "request lost", "late"]),
        count=st.integers(1, 7),
    )
    def a_batch_meets(self, place: str, how: str, count: int) -> None:
        """One crash and one create that goes wrong, on the way of a batch of its own."""
        self.call(count, 1)
        self.provider.creating, self.dies_at = how, place
        self.goes_on(4, ["answered"])

    # ---- what goes wrong
    @rule(place=st.sampled_from(PLACES))
    def next_process_dies_at(self, place: str) -> None:
        self.dies_at = place

    @precondition(lambda self: self.provider.running())
    @rule(
        data=st.data(),
        code=st.sampled_from(["token_limit_exceeded", "invalid_request", "odd"]),
        line=st.none() | st.integers(1, 5),
    )
    def validation_fails(self, data: st.DataObject, code: str, line: int | None) -> None:
        remote = data.draw(st.sampled_from(self.provider.running()))
        self.provider.fail(remote, code, line)

    @rule(how=st.sampled_from(["answer lost", "request lost", "late"]))
    def next_create(self, how: str) -> None:
        self.provider.creating = how

    @rule(lag=st.sampled_from([0.0, ADOPT_WAIT / 2]))
    def lists_lag(self, lag: float) -> None:
        self.provider.lag = lag

    @precondition(lambda self: self.provider.in_flight)
    @rule()
    def late_create_arrives(self) -> None:
        self.provider.arrive()

    @rule(
        method=st.sampled_from(
            ["upload", "create", "adopt", "status", "statuses", "download", "delete_file"]
        )
    )
    def provider_unavailable(self, method: str) -> None:
        self.provider.faults.add(method)

    @precondition(lambda self: self.rt.messages)
    @rule()
    def messages_lost(self) -> None:
        self.rt.messages.clear()

    @rule()
    def timers_lost(self) -> None:
        self.redis.delete("{lowtide}:timers")

    @rule()
    def redis_wiped(self) -> None:
        """All that was accepted is submitted: Redis may go."""
        assume(not self._buffered())
        self.redis.flushdb()

    # ---- what must hold
    def _buffered(self) -> list[str]:
        redis: Any = self.redis
        lines = redis.keys("{lowtide}:*:lines")
        return [name.decode() for key in lines for name in redis.hkeys(key)]

    def _rows(self) -> dict[str, tuple[str, str]]:
        joined = select(REQUESTS.c.custom_id, REQUESTS.c.state, BATCHES.c.state.label("of"))
        query = joined.join(BATCHES, BATCHES.c.id == REQUESTS.c.batch_id)
        with self.rt.ledger._db.read() as connection:
            return {row.custom_id: (row.state, row.of) for row in connection.execute(query)}

    @invariant()
    def every_request_is_somewhere(self) -> None:
        rows, buffered = self._rows(), Counter(self._buffered())
        assert all(count == 1 for count in buffered.values()), "twice in buffers"
        for task_id in self.steps:
            if self.backend.ended[task_id]:
                continue
            mine = [name for name in {*rows, *buffered} if name.startswith(f"{task_id}.")]
            waits = [n for n in mine if n in buffered or rows[n][0] == "RECORDED"]
            assert waits, f"{task_id} is nowhere"
        for name, (state, batch_state) in rows.items():
            if state == "RECORDED":
                assert batch_state not in ("DELIVERED", "CANCELLED"), f"{name} is in a closed batch"

    @invariant()
    def nothing_twice(self) -> None:
        assert max(self.backend.ended.values(), default=0) <= 1
        paid = {name: count for name, count in self.provider.billed.items() if count > 1}
        assert not paid, f"paid more than once: {paid}"

    @invariant()
    def no_key_leaks(self) -> None:
        assert leaked_keys(self.redis, []) == []

    def teardown(self) -> None:
        try:
            self._heal()
            for task_id in self.steps:
                assert self.backend.ended[task_id] == 1, f"{task_id} has no outcome"
            self.nothing_twice()
            rows = self._rows()
            assert {state for state, _ in rows.values()} <= {"DELIVERED", "FAILED", "CONTINUED"}
            assert self._buffered() == []
            assert self.provider.names == {}, "files of ours are left at the provider"
        finally:
            self.rt.ledger.close()
            self.folder.cleanup()

    def _heal(self) -> None:
        """All works again: until nothing is on its way."""
        self.dies_at, self.provider.creating, self.provider.lag = None, "done", 0.0
        self.provider.faults.clear()
        for _ in range(200):
            while self.provider.in_flight:
                self.provider.arrive()
            for remote in self.provider.running():
                self.provider.run(remote, ["answered"], "completed")
            self.tick()
            while self.rt.messages:
                self._take(0)
            states = {of for _, of in self._rows().values()}
            if states <= {"DELIVERED", "CANCELLED"} and not self._buffered():
                return
            self.clock.advance(LEASE + 1)


@pytest.fixture
def quietly() -> Iterator[Callable[..., Any]]:
    with pytest.MonkeyPatch.context() as patch:
        yield partial(_make, patch)


def _same_each_time(patch: pytest.MonkeyPatch) -> None:
    """The same rules have to lead to the same ids, in the same order: Hypothesis replays them."""
    numbers = itertools.count()
    patch.setattr(secrets, "randbits", lambda bits: next(numbers) % 2**bits)
    patch.setattr(secrets, "token_hex", lambda size: f"{next(numbers):0{2 * size - 1}x}0")
    buffer._turnarounds.clear()
    limits._ratios.clear()


def _make(patch: pytest.MonkeyPatch, redis: Redis, url: str) -> type[Machine]:
    class Bound(Machine):
        def __init__(self) -> None:
            super().__init__(redis, url, patch)

    return Bound


@pytest.mark.timeout(60 + 30 * EXAMPLES)
def test_any_sequence(redis: Redis, redis_url: str, quietly: Callable[..., Any]) -> None:
    run_state_machine_as_test(
        quietly(redis, redis_url),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_answer_tells_whose_it_is() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    assert answer(body)["choices"][0]["message"]["content"] == "x"
