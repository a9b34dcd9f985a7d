"""A batch is created exactly once, whatever happens around the create."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from lowtide import control, keys
from lowtide.errors import (
    AccountPaused,
    BatchFailed,
    CreateAmbiguous,
    ProviderError,
    ProviderUnavailable,
)
from lowtide.ledger.tables import BATCHES
from lowtide.pipeline import Next
from lowtide.runtime import Runtime
from lowtide.submit import submit
from lowtide.sweep import sweep
from tests.pipeline.conftest import Interfering, billed, ended, requests, sealed
from tests.plugins.stack import Simulator


class Killed(BaseException):
    """Stands for a process that ends here."""


def fail_once(error: BaseException) -> Any:
    left = [error]

    def hook(*_args: Any, **_kwargs: Any) -> Any:
        if left:
            raise left.pop()
        return _args[0] if _args else None

    return hook


def once(answer: Any) -> Any:
    """A hook after a call that gives `answer` in place of what the first call gave."""
    left = [answer]
    return lambda found: left.pop() if left else found


def reason_of(rt: Runtime, batch_id: str) -> str | None:
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    return batch.reason


def state_of(rt: Runtime, batch_id: str) -> str:
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    return str(batch.state)


def test_a_sealed_batch_is_recorded_uploaded_and_created(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    given = requests(25)
    batch_id = sealed(rt, given)

    after = submit(rt, batch_id)

    assert after is not None
    assert after.verb == "poll"
    assert after.at is not None
    assert state_of(rt, batch_id) == "SUBMITTED"
    assert rt.buffer.sealed() == []
    assert rt.ledger.ids(batch_id) == {request.custom_id for request in given}
    ended(rt, batch_id)
    assert billed(simulator, given) == [1] * 25


def test_a_second_submit_changes_nothing(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    given = requests(3)
    batch_id = sealed(rt, given)
    submit(rt, batch_id)

    assert submit(rt, batch_id) is None

    assert provider.calls.count("create") == 1
    ended(rt, batch_id)
    assert billed(simulator, given) == [1] * 3


@pytest.mark.parametrize("method", ["upload", "create", "adopt"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_replica_killed_around_a_call_is_followed_by_another(
    rt: Runtime, provider: Interfering, simulator: Simulator, method: str, when: str
) -> None:
    given = requests(4)
    batch_id = sealed(rt, given)
    if method == "adopt":
        # An adoption needs a create in doubt before it.
        provider.after["create"] = fail_once(CreateAmbiguous("no answer"))
    getattr(provider, when)[method] = fail_once(Killed())

    with pytest.raises(Killed):
        submit(rt, batch_id)
    after = submit(rt, batch_id)

    assert after is not None
    assert state_of(rt, batch_id) == "SUBMITTED"
    ended(rt, batch_id)
    assert billed(simulator, given) == [1] * 4


def test_an_answer_lost_after_creating_leads_to_adoption(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    given = requests(4)
    batch_id = sealed(rt, given)
    provider.after["create"] = fail_once(CreateAmbiguous("502"))

    submit(rt, batch_id)

    assert provider.calls.count("create") == 1
    assert state_of(rt, batch_id) == "SUBMITTED"
    ended(rt, batch_id)
    assert billed(simulator, given) == [1] * 4


def test_a_create_in_doubt_that_never_happened_is_made_once_the_wait_is_over(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    given = requests(4)
    batch_id = sealed(rt, given)
    rt.settings.adopt_wait = 30.0
    provider.before["create"] = fail_once(CreateAmbiguous("cut before it was sent"))

    waits = submit(rt, batch_id)
    assert waits is not None
    assert waits.verb == "submit"
    assert state_of(rt, batch_id) == "SUBMITTING"
    assert "is not listed by the provider; looking again" in str(reason_of(rt, batch_id))
    assert "delete_file" not in provider.calls

    rt.settings.adopt_wait = 0.0
    submit(rt, batch_id)

    assert provider.calls.count("delete_file") == 1
    assert state_of(rt, batch_id) == "SUBMITTED"
    ended(rt, batch_id)
    assert billed(simulator, given) == [1] * 4


def test_a_create_that_comes_after_its_file_was_deleted_is_not_paid(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    """A replica stood still between noting the intent and creating; another one took over."""
    given = requests(4)
    batch_id = sealed(rt, given)
    late: list[Any] = []

    def stand_still(*args: Any, **kwargs: Any) -> None:
        late.append((args, kwargs))
        raise Killed

    provider.before["create"] = stand_still
    with pytest.raises(Killed):
        submit(rt, batch_id)
    del provider.before["create"]
    submit(rt, batch_id)

    args, kwargs = late[0]
    provider.create(*args, **kwargs)

    ended(rt, batch_id)
    assert billed(simulator, given) == [1] * 4


@pytest.mark.parametrize("method", ["upload", "create"])
def test_a_passing_failure_waits_and_is_tried_again(
    rt: Runtime, provider: Interfering, simulator: Simulator, method: str
) -> None:
    given = requests(2)
    batch_id = sealed(rt, given)
    provider.before[method] = fail_once(ProviderUnavailable("429", {"retry_after": 7.0}))

    waits = submit(rt, batch_id)

    assert isinstance(waits, Next)
    assert waits.verb == "submit"
    assert waits.at is not None
    assert 6.0 < waits.at - rt.clock.now() < 8.0
    assert reason_of(rt, batch_id) == "429"
    submit(rt, batch_id)
    assert reason_of(rt, batch_id) is None
    assert state_of(rt, batch_id) == "SUBMITTED"
    ended(rt, batch_id)
    assert billed(simulator, given) == [1] * 2


def test_a_paused_account_holds_the_batch_until_it_works_again(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    given = requests(2)
    batch_id = sealed(rt, given)
    provider.before["create"] = fail_once(AccountPaused("The key is wrong; set OPENAI_API_KEY."))

    other = sealed(rt, requests(1))
    submit(rt, batch_id)
    held = rt.ledger.batch(batch_id)

    assert held is not None
    assert held.state == "HELD"
    assert held.reason == "The key is wrong; set OPENAI_API_KEY."
    # Nobody else tries meanwhile.
    submit(rt, other)
    assert state_of(rt, other) == "HELD"
    assert provider.calls.count("create") == 1
    # When it is time, one replica probes; that it works lets all go on.
    rt.redis.delete(keys.probe(rt.settings.namespace, "default"))
    submit(rt, batch_id)
    assert control.pauses(rt) == {}
    submit(rt, other)
    assert state_of(rt, other) == "SUBMITTED"
    assert state_of(rt, batch_id) == "SUBMITTED"
    assert provider.calls.count("upload") == 2  # one for each batch
    ended(rt, batch_id)
    assert billed(simulator, given) == [1] * 2


def test_a_worker_that_starts_tries_suspended_accounts_at_once(
    rt: Runtime, provider: Interfering
) -> None:
    batch_id = sealed(rt, requests(2))
    provider.before["create"] = fail_once(AccountPaused("There is no key."))
    held = submit(rt, batch_id)
    assert held is not None
    assert held.at is not None
    rt.timers.arm("submit", batch_id, held.at)
    rt.timers.arm("sweep", "all", rt.clock.now() + 60.0)

    sweep(rt)
    assert rt.timers.due_at("submit", batch_id) == pytest.approx(held.at)
    control.ask_again(rt)
    assert rt.timers.due_at("sweep", "all") == pytest.approx(rt.clock.now(), abs=2.0)
    sweep(rt)
    assert rt.timers.due_at("submit", batch_id) == pytest.approx(rt.clock.now(), abs=2.0)

    submit(rt, batch_id)


@pytest.mark.parametrize("status", [404, 405])
def test_a_create_in_doubt_at_a_service_without_a_list_is_made_once_the_wait_is_over(
    rt: Runtime,
    provider: Interfering,
    simulator: Simulator,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    def no_list(*_args: Any, **_kwargs: Any) -> None:
        raise ProviderError("It has no such path.", {"status": status})

    given = requests(2)
    batch_id = sealed(rt, given)
    rt.settings.adopt_wait = 30.0
    provider.before["create"] = fail_once(CreateAmbiguous("cut before it was sent"))
    provider.before["adopt"] = no_list

    waits = submit(rt, batch_id)
    assert waits is not None
    assert state_of(rt, batch_id) == "SUBMITTING"
    assert "lists no batches" in caplog.text
    rt.settings.adopt_wait = 0.0
    submit(rt, batch_id)

    assert state_of(rt, batch_id) == "SUBMITTED"
    assert provider.calls.count("delete_file") == 1
    ended(rt, batch_id)
    assert billed(simulator, given) == [1] * 2


def test_an_account_refused_at_the_upload_comes_back_with_the_next_probe(
    rt: Runtime, provider: Interfering
) -> None:
    batch_id = sealed(rt, requests(2))
    provider.before["upload"] = fail_once(AccountPaused("The key is wrong; set OPENAI_API_KEY."))
    submit(rt, batch_id)
    assert state_of(rt, batch_id) == "HELD"

    rt.redis.delete(keys.probe(rt.settings.namespace, "default"))
    submit(rt, batch_id)

    assert state_of(rt, batch_id) == "SUBMITTED"
    assert control.pauses(rt) == {}


def test_what_a_person_paused_stays_paused_when_a_worker_starts(rt: Runtime) -> None:
    control.pause(rt, "default")
    rt.timers.arm("sweep", "all", rt.clock.now() + 60.0)

    control.ask_again(rt)

    assert rt.timers.due_at("sweep", "all") == pytest.approx(rt.clock.now() + 60.0, abs=2.0)


@pytest.mark.parametrize("method", ["adopt", "delete_file"])
def test_a_create_in_doubt_stays_so_while_the_account_is_refused(
    rt: Runtime, provider: Interfering, simulator: Simulator, method: str
) -> None:
    given = requests(2)
    batch_id = sealed(rt, given)
    provider.after["create"] = fail_once(CreateAmbiguous("cut after it was made"))
    provider.before[method] = fail_once(AccountPaused("403"))
    if method == "delete_file":
        provider.after["adopt"] = once(None)  # the list lags

    waits = submit(rt, batch_id)

    assert waits is not None
    assert waits.verb == "submit"
    assert waits.at == pytest.approx(rt.clock.now() + rt.settings.poll_max, abs=5)
    assert state_of(rt, batch_id) == "SUBMITTING"
    assert "default" in control.pauses(rt)
    assert waits.at is not None
    rt.timers.arm("submit", batch_id, waits.at)
    control.resume(rt, "default")
    assert rt.timers.due_at("submit", batch_id) == pytest.approx(rt.clock.now(), abs=5)
    submit(rt, batch_id)
    assert state_of(rt, batch_id) == "SUBMITTED"
    assert provider.calls.count("create") == 1
    ended(rt, batch_id)
    assert billed(simulator, given) == [1] * 2


def test_a_refused_batch_ends_so_that_its_tasks_are_told(
    rt: Runtime, provider: Interfering
) -> None:
    batch_id = sealed(rt, requests(2))
    provider.before["create"] = fail_once(BatchFailed("Invalid value: 'endpoint'."))

    after = submit(rt, batch_id)

    assert after == Next("fetch", batch_id)
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    assert (batch.state, batch.provider_status) == ("ENDED", "rejected")


def test_a_request_that_is_on_its_way_already_is_left_out_of_the_next_batch(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    """Redis forgot a task, and its message came again."""
    given = requests(3)
    first = sealed(rt, given)
    submit(rt, first)
    rt.buffer.forget([request.task_id for request in given])

    second = sealed(rt, given)
    submit(rt, second)

    assert state_of(rt, second) == "CANCELLED"
    ended(rt, first)
    assert billed(simulator, given) == [1] * 3


def test_a_batch_that_nobody_knows_is_no_error(rt: Runtime, provider: Interfering) -> None:
    assert submit(rt, "b-unknown") is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 425, 429, 500, 502, 504])
def test_a_create_that_is_refused_after_it_was_passed_on_is_found_before_another(
    rt: Runtime, provider: Interfering, simulator: Simulator, status: int
) -> None:
    given = requests(2)
    batch_id = sealed(rt, given)
    rule = {"kind": "error_after", "count": 1, "status": status}
    httpx2.post(f"{simulator.root}/simulator/faults", json=rule).raise_for_status()

    submit(rt, batch_id)
    rt.redis.delete(keys.probe(rt.settings.namespace, "default"))
    submit(rt, batch_id)

    assert provider.calls.count("create") == 1
    assert state_of(rt, batch_id) == "SUBMITTED"
    ended(rt, batch_id)
    assert billed(simulator, given) == [1] * 2


def test_a_create_that_was_put_off_waits_until_it_can_be_looked_for(
    rt: Runtime, provider: Interfering
) -> None:
    batch_id = sealed(rt, requests(2))
    rt.settings.adopt_wait = 30.0
    provider.before["create"] = fail_once(ProviderUnavailable("429"))
    provider.before["adopt"] = fail_once(ProviderUnavailable("500"))

    submit(rt, batch_id)
    submit(rt, batch_id)
    assert state_of(rt, batch_id) == "UPLOADED"
    assert provider.calls.count("create") == 1

    submit(rt, batch_id)
    assert state_of(rt, batch_id) == "SUBMITTED"


@pytest.mark.parametrize(
    "error", [ProviderUnavailable("500"), ProviderError("404"), AccountPaused("403")]
)
def test_a_create_that_was_put_off_does_not_wait_for_ever_for_a_list(
    rt: Runtime, provider: Interfering, error: ProviderError
) -> None:
    def no_list(*_args: Any, **_kwargs: Any) -> None:
        raise error

    batch_id = sealed(rt, requests(2))
    provider.before["create"] = fail_once(ProviderUnavailable("429"))
    provider.before["adopt"] = no_list

    submit(rt, batch_id)
    submit(rt, batch_id)

    assert state_of(rt, batch_id) == "SUBMITTED"
    assert control.pauses(rt) == {}


def test_a_batch_that_a_ledgers_standby_did_not_hear_of_is_adopted(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    """A failover that is not synchronous takes back what was noted last."""
    given = requests(2)
    batch_id = sealed(rt, given)
    submit(rt, batch_id)
    lost = {"state": "UPLOADED", "provider_batch_id": None, "submitting_at": None}
    with rt.ledger._db.write() as connection:
        connection.execute(update(BATCHES).where(BATCHES.c.id == batch_id).values(lost))

    submit(rt, batch_id)

    assert provider.calls.count("create") == 1
    assert state_of(rt, batch_id) == "SUBMITTED"
    ended(rt, batch_id)
    assert billed(simulator, given) == [1] * 2


def test_a_file_that_is_gone_before_the_batch_is_created_is_uploaded_again(
    rt: Runtime, provider: Interfering, simulator: Simulator
) -> None:
    """As after the account's key moved to another project, or the file's expiry."""
    given = requests(2)
    batch_id = sealed(rt, given)
    provider.before["create"] = fail_once(ProviderUnavailable("429"))
    submit(rt, batch_id)
    batch = rt.ledger.batch(batch_id)
    assert batch is not None
    gone = str(batch.input_file_id)

    def refuse(file_id: str, **_kwargs: Any) -> None:
        if file_id == gone:
            raise BatchFailed(f"No such File object: {gone}")

    provider.before["create"] = refuse

    submit(rt, batch_id)

    assert state_of(rt, batch_id) == "SUBMITTED"
    assert provider.calls.count("upload") == 2
    ended(rt, batch_id)
    assert billed(simulator, given) == [1] * 2


def test_a_batch_that_was_put_off_is_refused_for_good_with_a_new_file(
    rt: Runtime, provider: Interfering
) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise BatchFailed("The model is not offered.")

    batch_id = sealed(rt, requests(2))
    provider.before["create"] = fail_once(ProviderUnavailable("429"))
    submit(rt, batch_id)
    provider.before["create"] = refuse

    after = submit(rt, batch_id)

    assert after == Next("fetch", batch_id)
    assert reason_of(rt, batch_id) == "The model is not offered."
    assert provider.calls.count("create") == 3
