"""Batches that would cost more than a day may are held, cut, or part with what has to wait."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson
import pytest
from msgspec import structs

from lowtide import limits, spending
from lowtide.clock import SystemClock
from lowtide.doctor import spend_checks
from lowtide.errors import AccountPaused
from lowtide.fetch import fetch
from lowtide.leases import claimed
from lowtide.ledger import BatchRow, Cap
from lowtide.recording import record
from lowtide.request import Request
from lowtide.runtime import Runtime
from lowtide.settings import Account, LaneOverride, SetPrice
from lowtide.submit import submit
from tests.pipeline.conftest import LANE, Interfering, billed, ended, requests, sealed
from tests.plugins.stack import Simulator

pytestmark = pytest.mark.usefixtures("_priced", "_nothing_learned")


@pytest.fixture
def _priced(rt: Runtime) -> None:
    """A request of 20 tokens costs $10: half of a dollar for each input token."""
    rt.settings.prices = {"gpt-5-mini": SetPrice(input=1e6, output=0.0)}


@pytest.fixture
def _nothing_learned() -> None:
    limits._ratios.clear()
    spending._written.clear()


class Later(SystemClock):
    """The clock of another day."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


def batch(rt: Runtime, batch_id: str) -> BatchRow:
    found = rt.ledger.batch(batch_id)
    assert found is not None
    return found


def of_task(task: str, given: list[Request]) -> list[Request]:
    return [structs.replace(each, task=task) for each in given]


def test_a_batch_over_the_cap_is_held_and_says_so(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    rt.settings.spend_cap_day = 25.0
    given = requests(2), requests(1)
    first, second = (sealed(rt, each) for each in given)

    submit(rt, first)
    after = submit(rt, second)

    assert batch(rt, first).state == "SUBMITTED"
    assert batch(rt, first).estimate == '{"tests.task":20.0}'
    held = batch(rt, second)
    assert (held.state, held.estimate) == ("HELD", None)
    assert held.reason == (
        "spend cap of $25.00 a day: $20.00 is spent or on its way; this batch needs about $10.00"
    )
    found = rt.where(given[1][0].task_id)
    assert found is not None
    assert found.summary["reason"] == held.reason
    assert after is not None
    assert after.at is not None
    assert 0 < after.at - rt.clock.now() <= 60
    assert billed(simulator, given[1]) == [0]


def test_it_goes_on_when_the_cap_is_raised(rt: Runtime, provider: Interfering) -> None:
    rt.settings.spend_cap_day = 5.0
    held = sealed(rt, requests(1))
    submit(rt, held)
    assert batch(rt, held).state == "HELD"

    rt.settings.spend_cap_day = 10.0
    submit(rt, held)

    assert (batch(rt, held).state, batch(rt, held).reason) == ("SUBMITTED", None)


def test_it_goes_on_the_next_day(rt: Runtime, provider: Interfering) -> None:
    rt.settings.spend_cap_day = 15.0
    first, second = sealed(rt, requests(1)), sealed(rt, requests(1))
    submit(rt, first)
    submit(rt, second)
    ended(rt, first)
    fetch(rt, first)
    _delivered(rt, first, cost=10.0)
    submit(rt, second)
    assert batch(rt, second).state == "HELD"

    rt.clock = rt.ledger._clock = later = Later()
    later.ahead = 86_400.0 - later.now() % 86_400.0
    submit(rt, second)

    assert batch(rt, second).state == "SUBMITTED"


def test_what_is_booked_makes_room_when_it_was_less_than_expected(
    rt: Runtime, provider: Interfering
) -> None:
    rt.settings.spend_cap_day = 15.0
    first, second = sealed(rt, requests(1)), sealed(rt, requests(1))
    submit(rt, first)
    submit(rt, second)
    ended(rt, first)
    fetch(rt, first)
    _delivered(rt, first, cost=4.0)

    submit(rt, second)

    assert batch(rt, second).state == "SUBMITTED"


@pytest.mark.parametrize("name", [LANE.account, LANE.model, LANE.key])
def test_a_cap_of_an_account_model_or_lane(rt: Runtime, provider: Interfering, name: str) -> None:
    rt.settings.lanes = {name: LaneOverride(spend_cap_day=5.0)}
    held = sealed(rt, requests(1))

    submit(rt, held)

    assert batch(rt, held).state == "HELD"
    assert "spend cap of $5.00 a day for " in str(batch(rt, held).reason)
    assert name in str(batch(rt, held).reason)


def test_of_two_tasks_in_a_batch_only_the_one_over_its_cap_waits(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    rt.settings.task_spend_caps = {"tests.dear": 5.0}
    dear, cheap = of_task("tests.dear", requests(2)), of_task("tests.cheap", requests(3))
    whole = sealed(rt, dear + cheap)

    submit(rt, whole)

    assert batch(rt, whole).state == "SUBMITTED"
    assert batch(rt, whole).requests == 3
    [apart] = [each for each in rt.ledger.batches() if each.parent == whole]
    assert rt.ledger.ids(apart.id) == {each.custom_id for each in dear}
    submit(rt, apart.id)
    # Together they are dearer than the whole cap; alone each is.
    parts = [each for each in rt.ledger.batches() if each.parent == apart.id]
    assert [each.requests for each in parts] == [1, 1]
    for part in parts:
        submit(rt, part.id)
        assert batch(rt, part.id).state == "HELD"
        assert "for task tests.dear" in str(batch(rt, part.id).reason)
    ended(rt, whole)
    assert billed(simulator, dear) == [0, 0]
    assert billed(simulator, cheap) == [1, 1, 1]


def test_a_batch_dearer_than_a_whole_cap_goes_in_parts(rt: Runtime, provider: Interfering) -> None:
    rt.settings.spend_cap_day = 40.0
    whole = sealed(rt, requests(6))

    assert submit(rt, whole) is None

    parts = [each for each in rt.ledger.batches() if each.parent == whole]
    assert [each.requests for each in parts] == [1] * 6
    for part in parts:
        submit(rt, part.id)
    states = sorted(str(batch(rt, part.id).state) for part in parts)
    assert states == ["HELD"] * 2 + ["SUBMITTED"] * 4


def test_a_batch_that_is_held_later_gives_its_room_back(rt: Runtime, provider: Interfering) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise AccountPaused("no quota")

    rt.settings.spend_cap_day = 15.0
    provider.before["create"] = refuse
    first = sealed(rt, requests(1))

    submit(rt, first)

    assert (batch(rt, first).state, batch(rt, first).estimate) == ("HELD", None)
    assert rt.ledger.spent([Cap("", 15.0)], 0.0) == {Cap("", 15.0): 0.0}


def test_a_held_batch_whose_file_is_uploaded_is_cut_without_it(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise AccountPaused("no quota")

    given = requests(4)
    whole = sealed(rt, given)
    provider.before["create"] = refuse
    submit(rt, whole)
    file_id = batch(rt, whole).input_file_id
    assert (batch(rt, whole).state, bool(file_id)) == ("HELD", True)
    del provider.before["create"]
    rt.redis.flushdb()
    rt.settings.spend_cap_day = 20.0

    submit(rt, whole)

    parts = [each for each in rt.ledger.batches() if each.parent == whole]
    assert len(parts) == 4
    assert "delete_file" in provider.calls
    for part in parts[:2]:
        submit(rt, part.id)
        ended(rt, part.id)
    assert sorted(billed(simulator, given)) == [0, 0, 1, 1]


@pytest.fixture
def held_with_its_file(rt: Runtime, provider: Interfering) -> str:
    """A batch of a task that is over its cap and of one that is not, held after its upload."""

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise AccountPaused("no quota")

    whole = sealed(rt, of_task("tests.dear", requests(1)) + of_task("tests.cheap", requests(1)))
    provider.before["create"] = refuse
    submit(rt, whole)
    assert (batch(rt, whole).state, bool(batch(rt, whole).input_file_id)) == ("HELD", True)
    del provider.before["create"]
    rt.redis.flushdb()
    rt.settings.task_spend_caps = {"tests.dear": 5.0}
    return whole


def test_what_is_left_of_a_held_batch_is_sent_in_a_file_of_its_own(
    rt: Runtime, provider: Interfering, held_with_its_file: str
) -> None:
    uploaded = batch(rt, held_with_its_file).input_file_id

    submit(rt, held_with_its_file)

    left = batch(rt, held_with_its_file)
    assert (left.state, left.requests) == ("SUBMITTED", 1)
    assert left.input_file_id != uploaded
    assert provider.status(str(left.provider_batch_id)).status != "failed"


def test_a_batch_never_names_a_file_that_a_dead_replica_deleted(
    rt: Runtime, provider: Interfering, held_with_its_file: str
) -> None:
    def die(_found: Any) -> None:
        raise KeyboardInterrupt

    provider.after["delete_file"] = die
    with pytest.raises(KeyboardInterrupt):
        submit(rt, held_with_its_file)
    del provider.after["delete_file"]
    rt.settings.task_spend_caps = {}  # raised meanwhile

    submit(rt, held_with_its_file)

    left = batch(rt, held_with_its_file)
    assert (left.state, left.requests) == ("SUBMITTED", 2)
    ended(rt, held_with_its_file)
    assert batch(rt, held_with_its_file).provider_status == "completed"


def test_a_batch_waits_whose_call_over_its_cap_is_asked_of_a_faster_service_just_now(
    rt: Runtime, provider: Interfering
) -> None:
    rt.settings.task_spend_caps = {"tests.dear": 5.0}
    dear, cheap = of_task("tests.dear", requests(1)), of_task("tests.cheap", requests(1))
    whole = sealed(rt, dear + cheap)
    record(rt, whole)

    with claimed(rt, whole, [dear[0].custom_id]) as claim:
        after = submit(rt, whole)

    assert batch(rt, whole).state == "HELD"
    assert "for task tests.dear" in str(batch(rt, whole).reason)
    assert after is not None
    assert after.at == pytest.approx(rt.clock.now() + rt.settings.lease, abs=5)
    rt.ledger.unclaim([dear[0].custom_id], claim.token)
    submit(rt, whole)
    assert (batch(rt, whole).state, batch(rt, whole).requests) == ("SUBMITTED", 1)


def test_the_answers_are_expected_to_be_as_long_as_the_last_ones_or_as_they_may_be(
    rt: Runtime, provider: Interfering
) -> None:
    rt.settings.prices = {"gpt-5-mini": SetPrice(input=0.0, output=1e6)}
    rt.settings.spend_cap_day = 1e6

    def expected(**body: Any) -> float:
        batch_id = sealed(rt, requests(2, **body))
        submit(rt, batch_id)
        return float(orjson.loads(str(batch(rt, batch_id).estimate))["tests.task"])

    assert expected(max_completion_tokens=300) == 300.0
    assert expected() == 20.0
    done = sealed(rt, requests(1))
    submit(rt, done)
    ended(rt, done)
    fetch(rt, done)
    _delivered(rt, done, output_tokens=50)
    spending._written.clear()
    assert expected(max_completion_tokens=300) == 50.0


def test_an_unknown_price_is_not_held_but_told(
    rt: Runtime, provider: Interfering, caplog: pytest.LogCaptureFixture
) -> None:
    rt.settings.spend_cap_day = 0.01
    given = requests(1, model="gpt-nobody-knows")
    batch_id = sealed(rt, given)

    submit(rt, batch_id)

    assert batch(rt, batch_id).state == "SUBMITTED"
    assert "no spend cap holds it; set LOWTIDE_PRICES" in caplog.text
    [finding] = spend_checks.caps(rt)
    assert finding.level == "warning"
    assert given[0].lane.key in finding.detail
    assert "LOWTIDE_PRICES" in finding.advice


def test_the_doctor_is_content_with_known_prices(rt: Runtime, provider: Interfering) -> None:
    assert spend_checks.caps(rt) == []
    rt.settings.spend_cap_day = 1.0
    sealed(rt, requests(1))

    assert [finding.level for finding in spend_checks.caps(rt)] == ["ok"]


def test_without_caps_nothing_is_asked_of_the_ledger(
    rt: Runtime, provider: Interfering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rt.ledger, "loads", None)
    batch_id = sealed(rt, requests(1))

    submit(rt, batch_id)

    assert batch(rt, batch_id).state == "SUBMITTED"


def test_a_full_cap_keeps_calls_from_faster_services(rt: Runtime, provider: Interfering) -> None:
    rt.settings.task_spend_caps = {"tests.task": 10.0}
    sent = sealed(rt, requests(1))
    assert spending.exhausted(rt, LANE, ["tests.task", "tests.other"]) == {}

    submit(rt, sent)

    full = spending.exhausted(rt, LANE, ["tests.task", "tests.other"])
    assert full == {
        "tests.task": "spend cap of $10.00 a day for task tests.task: $10.00 is spent or on its way"
    }


def _delivered(rt: Runtime, batch_id: str, **booked: Any) -> None:
    """Every request of a fetched batch is booked, and the batch is closed."""
    from lowtide.ledger import Outcome, RequestState

    ids = sorted(rt.ledger.ids(batch_id))
    rt.ledger.claim(batch_id, ids, "test", 60.0)
    rt.ledger.settle("test", [Outcome(name, RequestState.DELIVERED, **booked) for name in ids])
    assert rt.ledger.close_if_done(batch_id)


def test_a_lanes_cap_is_for_all_its_shares_together(rt: Runtime, provider: Interfering) -> None:
    rt.settings.lanes = {LANE.key: LaneOverride(spend_cap_day=15.0)}
    first, second = (
        sealed(rt, [structs.replace(each, lane=dataclasses.replace(LANE, share=share))])
        for each, share in zip(requests(2), ("acme", "ebay"), strict=True)
    )

    submit(rt, first)
    submit(rt, second)

    assert batch(rt, first).state == "SUBMITTED"
    assert batch(rt, second).state == "HELD"
    assert "$10.00 is spent or on its way" in str(batch(rt, second).reason)


class TestTurns:
    """Two lanes under one cap, which has room for one batch of $10 a day."""

    @pytest.fixture
    def waiting(self, rt: Runtime, provider: Interfering) -> tuple[list[str], str]:
        """Three batches of "acme", then one of "globex", all of them held."""
        rt.settings.spend_cap_day = 10.0
        submit(rt, sealed(rt, of_share("acme", requests(1))))
        acme = [sealed(rt, of_share("acme", requests(1))) for _ in range(3)]
        globex = sealed(rt, of_share("globex", requests(1)))
        for batch_id in (*acme, globex):
            submit(rt, batch_id)
        return acme, globex

    def test_on_the_next_day_each_lane_has_its_turn(
        self, rt: Runtime, waiting: tuple[list[str], str]
    ) -> None:
        acme, globex = waiting
        next_day(rt)
        rt.settings.spend_cap_day = 20.0  # the batch that was sent is still on its way

        for batch_id in (*acme, globex):
            rt.timers.arm("submit", batch_id, rt.clock.now() + 900)
            submit(rt, batch_id)

        assert batch(rt, globex).state == "SUBMITTED"
        assert [batch(rt, each).state for each in acme] == ["HELD"] * 3
        # Who is next is looked at now, and refused: then the cap is for whatever fits.
        assert rt.timers.due_at("submit", acme[0]) == pytest.approx(rt.clock.now(), abs=5)

    def test_a_new_batch_goes_behind_those_of_yesterday(
        self, rt: Runtime, waiting: tuple[list[str], str]
    ) -> None:
        acme, _ = waiting
        next_day(rt)

        fresh = sealed(rt, of_share("acme", requests(1)))
        submit(rt, fresh)

        assert batch(rt, fresh).state == "HELD"
        assert "yesterday" in str(batch(rt, fresh).reason)
        assert batch(rt, acme[0]).state == "HELD"

    def test_a_batch_of_an_account_that_is_no_longer_set_keeps_back_no_other(
        self, rt: Runtime, waiting: tuple[list[str], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        acme, globex = waiting
        monkeypatch.setitem(rt.settings.accounts, "old", Account())
        rt.settings.spend_cap_day = 0.0
        gone = sealed(rt, of_account("old", requests(1)))
        submit(rt, gone)
        for batch_id in (*acme, globex):
            submit(rt, batch_id)
            assert batch(rt, batch_id).state == "HELD"
        monkeypatch.delitem(rt.settings.accounts, "old")
        next_day(rt)
        rt.settings.spend_cap_day = 100.0

        for batch_id in (globex, *acme):
            submit(rt, batch_id)

        assert batch(rt, globex).state == "SUBMITTED"
        assert [batch(rt, each).state for each in acme] == ["SUBMITTED"] * 3

    def test_what_had_its_turn_today_keeps_back_nobody_for_whom_there_is_room(
        self, rt: Runtime, waiting: tuple[list[str], str]
    ) -> None:
        acme, globex = waiting
        next_day(rt)
        for batch_id in (globex, *acme):
            submit(rt, batch_id)
        rt.settings.spend_cap_day = 20.0

        fresh = sealed(rt, of_share("acme", requests(1)))
        submit(rt, fresh)

        assert batch(rt, fresh).state == "SUBMITTED"


def of_account(name: str, given: list[Request]) -> list[Request]:
    lane = dataclasses.replace(LANE, account=name)
    return [structs.replace(each, lane=lane) for each in given]


def of_share(share: str, given: list[Request]) -> list[Request]:
    lane = dataclasses.replace(LANE, share=share)
    return [structs.replace(each, lane=lane) for each in given]


def next_day(rt: Runtime) -> None:
    rt.clock = later = Later()
    later.ahead = 86_400.0
    rt.ledger._clock = later
