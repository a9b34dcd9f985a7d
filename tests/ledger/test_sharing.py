"""Requests that are the same share one line: they stay together, and it is paid once."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from lowtide.ledger import BatchState, Ledger, NewRequest, Outcome, Recorded, RequestState
from tests.ledger.support import advance, leased, new_batch, new_request, settle


def same(custom_id: str, key: str = "same") -> NewRequest:
    return replace(new_request(custom_id), share_key=key)


def recorded(ledger: Ledger, batch_id: str, rows: Iterable[NewRequest]) -> Recorded:
    return ledger.record(new_batch(batch_id), rows)


def file_of(ledger: Ledger, batch_id: str) -> list[str]:
    """The lines that a batch's file would have."""
    return [name for chunk in ledger.lines(batch_id, chunk=2) for name, _ in chunk]


def answered(custom_id: str, cost: float = 1.0) -> Outcome:
    return Outcome(
        custom_id,
        RequestState.DELIVERED,
        input_tokens=10,
        cost=cost,
        full_price=2 * cost,
        tier="batch",
    )


def deliver(ledger: Ledger, batch_id: str, *custom_ids: str) -> None:
    ledger.claim(batch_id, custom_ids, "w1", 60.0)
    ledger.settle("w1", [answered(each) for each in custom_ids], sharing_line=custom_ids)


def money(ledger: Ledger, *custom_ids: str) -> list[tuple[float | None, str | None]]:
    rows = [ledger.task(each.split(".")[0])[0] for each in custom_ids]
    return [(row.cost, row.tier) for row in rows]


@pytest.fixture
def twins(ledger: Ledger) -> Ledger:
    """Batch "b1" with "a" and "c", which are the same, and "b", which is not."""
    recorded(ledger, "b1", [same("a.0.0"), new_request("b.0.0"), same("c.0.0")])
    return ledger


def test_those_of_one_batch_share_a_line(twins: Ledger) -> None:
    batch = twins.batch("b1")

    assert file_of(twins, "b1") == ["a.0.0", "b.0.0"]
    assert twins.names("b1") == {"a.0.0", "b.0.0"}
    assert twins.ids("b1") == {"a.0.0", "b.0.0", "c.0.0"}
    assert twins.followers("b1", ["a.0.0", "b.0.0"]) == {"c.0.0": "a.0.0"}
    assert batch is not None
    assert batch.tokens == 20


def test_other_keys_have_lines_of_their_own(ledger: Ledger) -> None:
    recorded(ledger, "b1", [same("a.0.0", "one"), same("b.0.0", "two")])

    assert file_of(ledger, "b1") == ["a.0.0", "b.0.0"]


@pytest.mark.parametrize("state", [s for s in BatchState if s in ("RECORDED", "SUBMITTED")])
def test_one_that_comes_later_waits_in_the_batch_of_the_first(
    twins: Ledger, state: BatchState
) -> None:
    advance(twins, "b1", state)

    done = recorded(twins, "b2", [same("d.0.0"), new_request("e.0.0")])

    assert done.joined == {"d.0.0": "b1"}
    assert done.added == 1
    assert file_of(twins, "b2") == ["e.0.0"]
    assert file_of(twins, "b1") == ["a.0.0", "b.0.0"]
    assert twins.followers("b1", ["a.0.0"]) == {"c.0.0": "a.0.0", "d.0.0": "a.0.0"}
    assert twins.batches_of(["d.0.0", "e.0.0"]) == {"d.0.0": "b1", "e.0.0": "b2"}


def test_a_batch_whose_every_request_waits_elsewhere_is_cancelled(twins: Ledger) -> None:
    recorded(twins, "b2", [same("d.0.0"), same("e.0.0")])

    batch = twins.batch("b2")
    assert batch is not None
    assert batch.state == BatchState.CANCELLED
    # Doing it again, as after a crash, writes nothing.
    assert not recorded(twins, "b2", [same("d.0.0"), same("e.0.0")]).new
    assert twins.batches_of(["d.0.0"]) == {"d.0.0": "b1"}


def test_the_line_stays_while_anybody_waits_for_it(twins: Ledger) -> None:
    settle(twins, "b1", ["a.0.0"], RequestState.REVOKED)
    recorded(twins, "b2", [same("d.0.0")])

    # By the name it had: whether or not the file was sent makes no difference.
    assert file_of(twins, "b1") == ["b.0.0", "a.0.0"]
    assert twins.followers("b1", ["a.0.0"]) == {"c.0.0": "a.0.0", "d.0.0": "a.0.0"}


def test_nobody_joins_what_has_its_answer(twins: Ledger) -> None:
    deliver(twins, "b1", "a.0.0", "c.0.0")

    assert recorded(twins, "b2", [same("d.0.0")]).joined == {}
    assert file_of(twins, "b2") == ["d.0.0"]
    assert twins.join([same("e.0.0")]) == {"e.0.0": "b2"}


class TestOfAnAnsweredLine:
    """A batch that ended, with an answer that somebody has and another does not have yet."""

    @pytest.fixture(autouse=True)
    def _ended(self, twins: Ledger) -> None:
        advance(twins, "b1", BatchState.FETCHED)
        deliver(twins, "b1", "a.0.0")

    def test_a_new_call_still_gets_it(self, twins: Ledger) -> None:
        assert twins.join([same("d.0.0")]) == {"d.0.0": "b1"}
        assert recorded(twins, "b2", [same("e.0.0")]).joined == {"e.0.0": "b1"}

    @pytest.mark.parametrize("again", ["a.1.0", "a.0.1"])
    def test_a_retry_or_a_next_step_asks_anew(self, twins: Ledger, again: str) -> None:
        assert twins.join([same(again)]) == {}
        assert recorded(twins, "b2", [same(again)]).joined == {}
        assert file_of(twins, "b2") == [again]

    def test_retries_share_a_line_again(self, twins: Ledger) -> None:
        recorded(twins, "b2", [same("a.1.0"), same("x.1.0")])

        assert file_of(twins, "b2") == ["a.1.0"]
        assert twins.join([same("c.1.0"), same("d.0.0")]) == {"c.1.0": "b2", "d.0.0": "b2"}


class TestJoin:
    def test_it_is_recorded_at_once(self, twins: Ledger) -> None:
        advance(twins, "b1", BatchState.SUBMITTED)

        assert twins.join([same("d.0.0"), same("x.0.0", "new")]) == {"d.0.0": "b1"}

        assert twins.undelivered("b1") == 4
        assert twins.batches_of(["x.0.0"]) == {}

    def test_again_it_writes_nothing(self, twins: Ledger) -> None:
        twins.join([same("d.0.0")])

        assert twins.join([same("d.0.0")]) == {"d.0.0": "b1"}
        assert twins.undelivered("b1") == 4

    def test_what_is_recorded_or_answered_elsewhere_is_told_so(self, twins: Ledger) -> None:
        deliver(twins, "b1", "a.0.0", "c.0.0")

        assert twins.join([same("a.0.0")]) == {"a.0.0": None}

    def test_it_takes_the_attempt_of_the_line(self, twins: Ledger) -> None:
        advance(twins, "b1", BatchState.ENDED)
        twins.requeue("b1", ["a.0.0"], reason="429", into="b2")

        twins.join([same("d.0.0")])

        assert {row.attempt for row in twins.task("d")} == {2}
        assert twins.batches_of(["d.0.0"]) == {"d.0.0": "b2"}


def test_sent_again_they_stay_together(twins: Ledger) -> None:
    advance(twins, "b1", BatchState.ENDED)
    settle(twins, "b1", ["a.0.0"], RequestState.REVOKED)

    twins.requeue(leased(twins, "b1"), ["a.0.0"], reason="expired", into="b2")

    assert file_of(twins, "b2") == ["a.0.0"]
    assert twins.ids("b2") == {"c.0.0"}
    assert twins.ids("b1") == {"b.0.0"}


class TestMoney:
    def test_the_one_that_names_the_line_pays(self, twins: Ledger) -> None:
        deliver(twins, "b1", "c.0.0", "a.0.0")

        assert money(twins, "a.0.0", "c.0.0") == [(1.0, "batch"), (0.0, "shared")]
        (costs,) = twins.costs("lane")
        assert (costs.cost, costs.full_price, costs.saving) == (1.0, 2.0, 1.0)
        assert (costs.input_tokens, costs.answered, costs.unpriced) == (10, 2, 0)

    def test_it_is_paid_once_however_it_is_delivered(self, twins: Ledger) -> None:
        deliver(twins, "b1", "c.0.0")
        deliver(twins, "b1", "a.0.0")

        assert money(twins, "a.0.0", "c.0.0") == [(0.0, "shared"), (1.0, "batch")]

    def test_another_pays_when_the_first_is_revoked(self, twins: Ledger) -> None:
        settle(twins, "b1", ["a.0.0"], RequestState.REVOKED)

        deliver(twins, "b1", "c.0.0")

        assert money(twins, "a.0.0", "c.0.0") == [(None, None), (1.0, "batch")]
        assert twins.book_waste("b1", {"a.0.0": 1.0}) == 0

    def test_what_nobody_uses_is_wasted_once(self, twins: Ledger) -> None:
        settle(twins, "b1", ["a.0.0", "c.0.0"], RequestState.REVOKED)

        assert [twins.book_waste("b1", {"a.0.0": 1.0}) for _ in range(2)] == [1, 0]

    def test_a_free_one_is_never_waste(self, twins: Ledger) -> None:
        deliver(twins, "b1", "c.0.0")
        deliver(twins, "b1", "a.0.0")

        assert twins.book_waste("b1", {"a.0.0": 1.0}) == 0


def test_recorded_at_the_same_time_they_are_one_line(ledger: Ledger) -> None:
    rows = {f"b{n}": [same(f"t{n}-{m}.0.0", f"k{m}") for m in range(20)] for n in range(6)}

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda batch: recorded(ledger, batch, rows[batch]), rows))

    assert sorted(len(file_of(ledger, batch)) for batch in rows) == [0, 0, 0, 0, 0, 20]
    assert sum(ledger.undelivered(batch) for batch in rows) == 120


def test_a_line_that_moves_and_one_that_joins_it_end_in_one_batch(ledger: Ledger) -> None:
    recorded(ledger, "b0", [same(f"a{n}.0.0", f"k{n}") for n in range(20)])
    advance(ledger, "b0", BatchState.ENDED)
    lease = leased(ledger, "b0")

    with ThreadPoolExecutor(2) as pool:
        moving = [
            pool.submit(ledger.requeue, lease, [f"a{n}.0.0"], reason="x", into=f"m{n}")
            for n in range(20)
        ]
        for n in range(20):
            ledger.join([same(f"z{n}.0.0", f"k{n}")])
        assert [each.result() for each in moving] == [f"m{n}" for n in range(20)]

    ids = [f"{who}{n}.0.0" for n in range(20) for who in "az"]
    where = ledger.batches_of(ids)
    assert [where[f"z{n}.0.0"] for n in range(20)] == [f"m{n}" for n in range(20)]
