"""Any sequence of verbs, against a model of what the ledger must then hold."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lowtide.clock import SimulatedClock
from lowtide.errors import StateError, Superseded
from lowtide.ledger import FINAL, OUTCOMES, BatchState, Lease, Ledger, Outcome, RequestState
from lowtide.ledger.transitions import BATCH, REQUEUES
from tests.ledger.conftest import empty
from tests.ledger.support import WAY, record

CUSTOM_IDS = [f"t{n}.0.0" for n in range(8)]
SOME_IDS = st.lists(st.sampled_from(CUSTOM_IDS), unique=True, min_size=1)
OWNERS = st.sampled_from(["w1", "w2"])
TTL = 10.0


@dataclass
class Batch:
    state: BatchState = BatchState.RECORDED
    fence: int = 0
    held: bool = False
    until: float = 0.0
    parent: str | None = None


@dataclass
class Row:
    batch: str
    state: RequestState = RequestState.RECORDED
    attempt: int = 1
    claim: str | None = None
    until: float = 0.0
    outcomes: list[RequestState] = field(default_factory=list)


class Machine(RuleBasedStateMachine):
    ledger: Ledger
    clock: SimulatedClock

    @initialize()
    def start(self) -> None:
        empty(self.ledger)
        self.names = itertools.count()
        self.batches: dict[str, Batch] = {}
        self.rows: dict[str, Row] = {}
        self.leases: list[Lease] = []

    def any_batch(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.batches)), "batch")

    def open_ids(self, batch_id: str) -> set[str]:
        return {
            i for i, row in self.rows.items() if row.batch == batch_id and row.state == "RECORDED"
        }

    @rule(ids=SOME_IDS, data=st.data())
    def record(self, ids: list[str], data: st.DataObject) -> None:
        again = bool(self.batches) and data.draw(st.booleans(), "again")
        name = self.any_batch(data) if again else f"b{next(self.names)}"
        new = [i for i in ids if i not in self.rows and name not in self.batches]

        recorded = record(self.ledger, name, ids)

        assert recorded.added == len(new)
        assert recorded.new is (name not in self.batches)
        if recorded.new:
            assert set(recorded.refused) == set(ids) - set(new)
            state = BatchState.RECORDED if new else BatchState.CANCELLED
            self.batches[name] = Batch(state)
            self.rows |= {i: Row(name) for i in new}

    @rule(seconds=st.sampled_from([1.0, TTL, 3 * TTL]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), owner=OWNERS)
    def lease(self, data: st.DataObject, owner: str) -> None:
        name = self.any_batch(data)
        batch = self.batches[name]
        free = not batch.held or batch.until <= self.clock.now()

        lease = self.ledger.lease(name, owner, TTL)

        assert (lease is not None) is (free and batch.state not in FINAL)
        if lease is not None:
            batch.fence += 1
            assert lease.fence == batch.fence
            batch.held, batch.until = True, lease.until
            self.leases.append(lease)

    def holds(self, lease: Lease) -> bool:
        batch = self.batches[lease.batch_id]
        return batch.held and batch.fence == lease.fence

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases), "lease")

        assert self.ledger.release(lease) is self.holds(lease)
        if self.holds(lease):
            self.batches[lease.batch_id].held = False

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), usual=st.booleans())
    def move(self, data: st.DataObject, usual: bool) -> None:
        lease = data.draw(st.sampled_from(self.leases), "lease")
        batch = self.batches[lease.batch_id]
        # Half of the moves go the usual way, or few sequences would come to its end.
        states = WAY[WAY.index(batch.state) + 1 :][:1] if usual and batch.state in WAY else ()
        to = data.draw(st.sampled_from(states or tuple(BatchState)), "to")
        legal = to is batch.state or (
            to in BATCH[batch.state] and not (to in FINAL and self.open_ids(lease.batch_id))
        )
        try:
            moved = self.ledger.move(lease, to)
        except Superseded:
            assert not self.holds(lease)
        except StateError:
            assert not legal
        else:
            assert legal
            assert self.holds(lease)
            assert moved.state is to
            batch.state = to

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), ids=st.none() | SOME_IDS, claim=st.none() | OWNERS)
    def requeue(self, data: st.DataObject, ids: list[str] | None, claim: str | None) -> None:
        name = self.any_batch(data)
        into = data.draw(st.sampled_from([*sorted(self.batches), "new"]), "into")
        into = f"b{next(self.names)}" if into == "new" else into
        now = self.clock.now()
        moving = {
            i
            for i in self.open_ids(name) & set(CUSTOM_IDS if ids is None else ids)
            if (row := self.rows[i]).claim in (None, claim) or row.until <= now
        }
        child = self.batches.get(into, Batch(parent=name))
        old = self.batches[name]
        writing = [b for b in (old, child) if b.state is BatchState.RECORDED and b.held]
        legal = not moving or (
            old.state in REQUEUES
            and child.parent == name
            and child.state is BatchState.RECORDED
            and not any(b.until > now for b in writing)
        )
        try:
            moved = self.ledger.requeue(name, ids, reason="test", into=into, claim=claim)
        except StateError:
            assert not legal
            return
        assert legal
        there = into in self.batches and child.parent == name
        assert moved == (into if moving or there else None)
        if moving:
            self.batches[into] = child
            for batch in writing:
                batch.held, batch.fence = False, batch.fence + 1
            for i in moving:
                row = self.rows[i]
                self.rows[i] = replace(row, batch=into, attempt=row.attempt + 1, claim=None)

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), ids=SOME_IDS, owner=OWNERS)
    def claim(self, data: st.DataObject, ids: list[str], owner: str) -> None:
        name = self.any_batch(data)
        now = self.clock.now()
        free = {
            i
            for i in self.open_ids(name) & set(ids)
            if self.rows[i].claim is None or self.rows[i].until <= now
        }

        claimed = self.ledger.claim(name, ids, owner, TTL)

        assert {row.custom_id: row.attempt for row in claimed} == {
            i: self.rows[i].attempt for i in free
        }
        for i in free:
            self.rows[i].claim, self.rows[i].until = owner, now + TTL

    @rule(ids=SOME_IDS, owner=OWNERS, state=st.sampled_from(sorted(OUTCOMES)))
    def settle(self, ids: list[str], owner: str, state: RequestState) -> None:
        ours = [
            row
            for i in ids
            if (row := self.rows.get(i)) and row.claim == owner and row.state == "RECORDED"
        ]

        assert self.ledger.settle(owner, [Outcome(i, state) for i in ids]) == len(ours)
        for row in ours:
            row.state, row.claim = state, None
            row.outcomes.append(state)

    @rule(ids=SOME_IDS, owner=OWNERS)
    def unclaim(self, ids: list[str], owner: str) -> None:
        ours = [row for i in ids if (row := self.rows.get(i)) and row.claim == owner]

        assert self.ledger.unclaim(ids, owner) == len(ours)
        for row in ours:
            row.claim = None

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        name = self.any_batch(data)
        batch = self.batches[name]
        if batch.state is BatchState.FETCHED and not self.open_ids(name):
            batch.state, batch.held = BatchState.DELIVERED, False

        assert self.ledger.close_if_done(name) is (batch.state is BatchState.DELIVERED)

    @invariant()
    def each_request_is_in_one_place(self) -> None:
        if not hasattr(self, "rows"):
            return
        for name, batch in self.batches.items():
            there = self.ledger.batch(name)
            assert there is not None
            assert (there.state, there.fence, there.parent) == (
                batch.state,
                batch.fence,
                batch.parent,
            )
            assert self.ledger.ids(name) == self.open_ids(name)
            assert batch.state not in FINAL or not self.open_ids(name)
        for custom_id, row in self.rows.items():
            [found] = self.ledger.task(custom_id.split(".")[0])
            assert (found.batch_id, found.state, found.attempt) == (
                row.batch,
                row.state,
                row.attempt,
            )
            assert len(row.outcomes) == (row.state != "RECORDED")


def test_any_sequence_of_verbs(ledger: Ledger, clock: SimulatedClock) -> None:
    class Bound(Machine):
        pass

    Bound.ledger, Bound.clock = ledger, clock
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
