"""What a person may do to lanes and batches: flush, pause, resume, cancel, bring on.

The page and the command line call these; so may an app. Each takes effect for all replicas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery.utils.log import get_logger

from lowtide import keys
from lowtide.errors import StateError
from lowtide.lane import Lane
from lowtide.sweep import STEP_OF

if TYPE_CHECKING:
    from lowtide.runtime import Runtime

logger = get_logger(__name__)
TO = "to:"
"""What the name of a destination starts with where it stands beside lanes and accounts."""
# Stands for no lane where only the account matters.
_NO_LANE = "::"
_BY_HAND = "by hand"
_BY_PROVIDER = "the provider refuses it: "


@dataclass(frozen=True, slots=True)
class Pause:
    """A lane or an account that is paused.

    Attributes:
        subject: Lane key or name of the account.
        since: Epoch seconds.
        reason: For people.
    """

    subject: str
    since: float
    reason: str

    @property
    def by_provider(self) -> bool:
        """Whether the provider's refusal paused an account, not a person."""
        return self.reason.startswith(_BY_PROVIDER)


def flush(rt: Runtime, lane: str) -> str | None:
    """Seals the lane's buffer now, whatever its age, and sends its batch on.

    Args:
        rt: The runtime of the app.
        lane: Lane key.

    Returns:
        Id of the batch; None when nothing waits.
    """
    batch_id = rt.buffer.seal(lane, only_if_due=False)
    if batch_id is not None:
        rt.kick("submit", batch_id)
    return batch_id


def pause(rt: Runtime, subject: str, reason: str = _BY_HAND) -> Pause:
    """Keeps back what a lane, or all lanes of an account, have to send.

    Calls are still accepted and wait in their buffer; what is at the provider already is followed
    to its end and delivered.

    Args:
        rt: The runtime of the app.
        subject: Lane key or name of the account.
        reason: For people; one line.
    """
    noted = Pause(subject, rt.clock.now(), " ".join(reason.split()) or _BY_HAND)
    rt.redis.hset(_key(rt), subject, f"{noted.since:.3f} {noted.reason}")
    return noted


def resume(rt: Runtime, subject: str) -> bool:
    """Ends a pause; what was kept back goes on at once.

    Returns:
        False when `subject` was not paused.
    """
    was = bool(rt.redis.hdel(_key(rt), subject))
    rt.redis.delete(_probe_key(rt, subject))
    if was:
        _bring_on(rt, subject)
    return was


def pauses(rt: Runtime) -> dict[str, Pause]:
    """All that is paused, by lane key or account."""
    found: Any = rt.redis.hgetall(_key(rt))
    return {name.decode(): _parse(name.decode(), value.decode()) for name, value in found.items()}


def paused(rt: Runtime, lane: str, account: str | None = None) -> Pause | None:
    """The pause that keeps a lane back: its own, of all its shares, or its account's; None when
    it may send.

    Args:
        rt: The runtime of the app.
        lane: Lane key.
        account: Name of its account; read from the key when left out.
    """
    *lanes, own = Lane.parse(lane).subjects
    names = [*lanes, own if account is None else account]
    found: Any = rt.redis.hmget(_key(rt), names)
    for name, value in zip(names, found, strict=True):
        if value is not None:
            return _parse(name, value.decode())
    return None


def suspend(rt: Runtime, account: str, reason: str) -> None:
    """Pauses an account that the provider refuses, until a probe shows that it works again.

    Args:
        rt: The runtime of the app.
        account: Name of the account.
        reason: The provider's words.
    """
    if paused(rt, _NO_LANE, account) is None:
        pause(rt, account, _BY_PROVIDER + reason)
        logger.error("Account %s is paused: %s", account, reason)
    rt.redis.set(_probe_key(rt, account), 1, px=round(rt.settings.poll_max * 1000))


def may_probe(rt: Runtime, account: str) -> bool:
    """Whether it is time to try a suspended account; True for one replica each `poll_max`."""
    milliseconds = round(rt.settings.poll_max * 1000)
    return bool(rt.redis.set(_probe_key(rt, account), 1, px=milliseconds, nx=True))


def ask_again(rt: Runtime) -> None:
    """Lets suspended accounts be tried at once: a worker that starts may have a new key."""
    refused = [name for name, pause in pauses(rt).items() if pause.by_provider]
    if refused:
        rt.redis.delete(*(_probe_key(rt, name) for name in refused))
        rt.timers.pull_in("sweep", "all", rt.clock.now())


def bring_on_refused(rt: Runtime) -> None:
    """Brings on what suspended accounts have to send, where it is time to try them."""
    for name, pause in pauses(rt).items():
        if pause.by_provider and not rt.redis.exists(_probe_key(rt, name)):
            _bring_on(rt, name)


def leave_probe(rt: Runtime, account: str) -> None:
    """Lets another batch try a suspended account now: the one that was to do so was held."""
    rt.redis.delete(_probe_key(rt, account))


def works(rt: Runtime, account: str) -> None:
    """Ends the pause of a suspended account, because the provider took a batch of it."""
    pause = paused(rt, _NO_LANE, account)
    if pause is not None and pause.by_provider:
        logger.info("Account %s works again", account)
        resume(rt, account)


def cancel(rt: Runtime, batch_id: str) -> int:
    """Revokes every task that waits for a batch, and asks the provider to cancel it.

    What the provider has answered by then is paid, and is still delivered to tasks that no
    worker knows as revoked.

    Args:
        rt: The runtime of the app.
        batch_id: Our id.

    Returns:
        How many tasks were revoked.

    Raises:
        StateError: There is no such batch, or it has ended.
        ProviderError: The provider could not be asked; the tasks are revoked.
    """
    batch = rt.ledger.batch(batch_id)
    if batch is None:
        raise StateError(f"The ledger has no batch {batch_id}.", {"batch": batch_id})
    if batch.state not in ("RECORDED", "UPLOADED", "HELD", "SUBMITTING", "SUBMITTED"):
        raise StateError(
            f"Batch {batch_id} is {batch.state}: there is nothing left to cancel.",
            {"batch": batch_id, "state": str(batch.state)},
        )
    revoked = 0
    after = ""
    while rows := rt.ledger.requests_in(batch_id, states=("RECORDED",), after=after, limit=500):
        after = rows[-1].custom_id
        rt.app.control.revoke(sorted({row.task_id for row in rows}))
        revoked += len(rows)
    if batch.state == "SUBMITTED" and batch.provider_batch_id:
        rt.provider(batch.account).cancel(batch.provider_batch_id)
    rt.timers.pull_in(STEP_OF[batch.state], batch_id, rt.clock.now())
    return revoked


def retry(rt: Runtime, batch_id: str) -> str:
    """Takes a batch's next step now in place of later: submits, asks the provider, fetches.

    Args:
        rt: The runtime of the app.
        batch_id: Our id.

    Returns:
        Name of the step.

    Raises:
        StateError: There is no such batch, or it is at its end.
    """
    batch = rt.ledger.batch(batch_id)
    if batch is None and rt.buffer.sealed_batch(batch_id) is not None:
        rt.kick("submit", batch_id)
        return "submit"
    step = STEP_OF.get(str(batch.state)) if batch is not None else None
    if batch is None or step is None:
        known = "not known" if batch is None else f"{batch.state}, which is its end"
        raise StateError(f"Batch {batch_id} is {known}: nothing to try again.", {"batch": batch_id})
    rt.kick(step, batch_id)
    return step


def _bring_on(rt: Runtime, subject: str) -> None:
    now = rt.clock.now()
    if subject.startswith(TO):
        rt.timers.pull_in("tell", subject.removeprefix(TO), now)
        return
    for status in rt.buffer.lanes():
        if status.requests and subject in Lane.parse(status.lane).subjects:
            rt.timers.pull_in("seal", status.lane, max(now, status.due or now))
    for sealed in rt.buffer.sealed():
        if subject in Lane.parse(sealed.lane).subjects:
            rt.timers.pull_in("submit", sealed.batch_id, now)
    for batch in rt.ledger.find_batches(
        states=("RECORDED", "UPLOADED", "SUBMITTING", "HELD"), limit=1000
    ):
        if subject in Lane.parse(batch.lane).subjects:
            rt.timers.pull_in("submit", batch.id, now)


def _probe_key(rt: Runtime, account: str) -> str:
    return keys.probe(rt.settings.namespace, account)


def _key(rt: Runtime) -> str:
    return keys.paused(rt.settings.namespace)


def _parse(subject: str, value: str) -> Pause:
    since, _, reason = value.partition(" ")
    return Pause(subject, float(since), reason)
