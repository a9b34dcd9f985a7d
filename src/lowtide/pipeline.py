"""The pipeline's Celery tasks: seal → submit → poll → fetch → deliver, and the sweep.

They are thin: each runs one step on one batch and arms what comes next. A step that fails for a
passing reason leaves its timer armed, so that it is taken again by whichever replica is alive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.utils.log import get_logger

from lowtide import failpoints, queues, quiet, runtime
from lowtide.decide import backoff
from lowtide.own_task import OwnTask

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Next:
    """What comes after a step.

    Attributes:
        verb: Name of the next step.
        batch_id: The batch it is for.
        at: Epoch seconds, None for at once.
        slices: For "deliver": how many slices wait.
    """

    verb: str
    batch_id: str
    at: float | None = None
    slices: int = 0


class Step(OwnTask):
    """A pipeline task."""

    abstract = True

    @property
    def queue(self) -> str:
        """The step's queue, read late so that a producer needs no settings."""
        settings = runtime.of(self.app).settings
        name = settings.deliver_queue if self.name == "lowtide.deliver" else None
        return queues.declared(self.app, name or settings.queue)


def register(app: Celery) -> None:
    """Makes the pipeline's tasks known to `app`."""
    for verb, function in _STEPS.items():
        app.task(function, name=f"lowtide.{verb}", base=Step, bind=True, lazy=False)


def seal(self: Step, lane: str) -> None:
    """Closes the lane's buffer when it is due; its batch goes on to `submit`."""
    rt = runtime.of(self.app)

    def work() -> None:
        batch_id = rt.buffer.seal(lane, only_if_due=True)
        if batch_id is not None:
            failpoints.reach("seal.sealed")
            rt.timers.arm("submit", batch_id, rt.clock.now() + rt.settings.lease)
            submit(self, batch_id)

    _guard(rt, "seal", lane, work)


def submit(self: Step, batch_id: str) -> None:
    """Records the batch in the ledger, uploads its file and creates it at the provider."""
    from lowtide.events import tell_submitted
    from lowtide.submit import submit as step

    def work(rt: runtime.Runtime, batch: str) -> Next | None:
        after = step(rt, batch)
        if after is not None and after.verb == "poll":
            tell_submitted(rt, batch, self.request.hostname or "")
        return after

    _run(self, "submit", batch_id, work)


def poll(self: Step, batch_ids: str | list[str]) -> None:
    """Reads the state of batches at the provider."""
    from lowtide.track import track

    rt = runtime.of(self.app)
    ids = [batch_ids] if isinstance(batch_ids, str) else batch_ids

    def work() -> None:
        for batch_id, after in track(rt, ids).items():
            _go_on(self, rt, "poll", batch_id, after, alone=len(ids) == 1)

    _guard(rt, "poll", ", ".join(ids), work)


def fetch(self: Step, batch_id: str) -> None:
    """Downloads a batch's answers and settles every request that was sent."""
    from lowtide.fetch import fetch as step

    _run(self, "fetch", batch_id, step)


def deliver(self: Step, batch_id: str, number: int | None = None) -> None:
    """Gives a slice of answers back to their tasks."""
    from lowtide.deliver import deliver as step

    hostname = self.request.hostname or ""
    _run(self, "deliver", batch_id, lambda rt, batch: step(rt, batch, number, hostname))


def revoke(self: Step, task_ids: str | list[str]) -> None:
    """Ends revoked tasks that wait for an answer."""
    from lowtide.revoke import revoke as step

    rt = runtime.of(self.app)
    ids = [task_ids] if isinstance(task_ids, str) else task_ids

    def work() -> None:
        again = step(rt, ids, self.request.hostname or "")
        for task_id in set(ids) - again.keys():
            rt.timers.disarm("revoke", task_id)
        for task_id, at in again.items():
            rt.timers.arm("revoke", task_id, at)

    _guard(rt, "revoke", f"{len(ids)} tasks", work)


def escalate(self: Step, scope: str = "all") -> None:
    """Asks a faster service for what batches cannot answer by its deadline."""
    from lowtide.escalate import escalate as step

    rt, hostname = runtime.of(self.app), self.request.hostname or ""

    def work() -> None:
        after = _tried(rt, "escalate", scope, lambda: step(rt, scope, hostname))
        _go_on(self, rt, "escalate", scope, after)
        # A sooner one that was recorded since the step looked had pulled in the timer that has
        # just been armed for later, or disarmed.
        soonest = rt.ledger.next_escalation()
        if soonest is not None:
            rt.timers.pull_in("escalate", scope, max(soonest, rt.clock.now() + rt.settings.tick))

    _guard(rt, "escalate", scope, work)


def tell(self: Step, destination: str) -> None:
    """Sends the results that wait in the outbox for a webhook, a stream or a result backend."""
    from lowtide.tell import tell as step

    _run(self, "tell", destination, step)


def sweep(self: Step, _scope: str = "all") -> None:
    """Re-arms every timer from ledger and buffers, so that whatever was lost goes on."""
    from lowtide.sweep import sweep as step

    rt = runtime.of(self.app)
    _guard(rt, "sweep", "all", lambda: step(rt))


_STEPS: dict[str, Callable[..., None]] = {
    "seal": seal,
    "submit": submit,
    "poll": poll,
    "fetch": fetch,
    "deliver": deliver,
    "revoke": revoke,
    "escalate": escalate,
    "tell": tell,
    "sweep": sweep,
}


def _run(
    task: Step, verb: str, batch_id: str, step: Callable[[runtime.Runtime, str], Next | None]
) -> None:
    rt = runtime.of(task.app)

    def work() -> None:
        _go_on(task, rt, verb, batch_id, _tried(rt, verb, batch_id, lambda: step(rt, batch_id)))

    _guard(rt, verb, batch_id, work)


def _tried(
    rt: runtime.Runtime, verb: str, batch_id: str, step: Callable[[], Next | None]
) -> Next | None:
    from lowtide.errors import ProviderUnavailable

    try:
        return step()
    except ProviderUnavailable as error:
        # Its timer would wait for a whole lease.
        wait = backoff(1, float(error.details.get("retry_after") or rt.settings.retry_delay))
        rt.timers.pull_in(verb, batch_id, rt.clock.now() + wait)
        raise


def _go_on(
    task: Step,
    rt: runtime.Runtime,
    verb: str,
    batch_id: str,
    after: Next | None,
    *,
    alone: bool = True,
) -> None:
    """Arms what comes next before the step's own timer goes, so that no crash loses the batch.

    Args:
        alone: Whether no other batch waits for this task, so that this one may go on in it. An
            answer then does not wait in the queue between its steps.
    """
    if after is None:
        rt.timers.disarm(verb, batch_id)
        return
    numbers: list[tuple[int, ...]] = [(number,) for number in range(after.slices)] or [()]
    here = alone and len(numbers) == 1 and _goes_on_here(rt, verb, after)
    if after.at is not None:
        rt.timers.arm(after.verb, after.batch_id, after.at)
    else:
        rt.timers.arm(after.verb, after.batch_id, rt.clock.now() + rt.settings.lease)
        failpoints.reach("next.armed")
        for number in () if here else numbers:
            rt.send(after.verb, after.batch_id, *number)
    failpoints.reach("next.sent")
    if (after.verb, after.batch_id) != (verb, batch_id):
        rt.timers.disarm(verb, batch_id)
    if here:
        _STEPS[after.verb](task, after.batch_id, *numbers[0])


def _goes_on_here(rt: runtime.Runtime, verb: str, after: Next) -> bool:
    if (verb, after.verb) == ("fetch", "deliver"):
        return rt.settings.deliver_queue in (None, rt.settings.queue)
    return (verb, after.verb) == ("poll", "fetch")


def _guard(rt: runtime.Runtime, verb: str, subject: str, work: Callable[[], Any]) -> None:
    """Runs a step; passing failures are a log line a minute, since its timer takes it again."""
    from redis.exceptions import RedisError

    from lowtide.errors import LedgerUnavailable, ProviderError, StateError

    try:
        work()
    except StateError as error:
        logger.info("%s %s: another replica is ahead: %s", verb, subject, error)
    except (RedisError, LedgerUnavailable, ProviderError, OSError) as error:
        kinds = {RedisError: "redis", LedgerUnavailable: "ledger", ProviderError: "provider"}
        kind = next((name for type_, name in kinds.items() if isinstance(error, type_)), "disk")
        quiet.warn(logger, kind, "%s %s waits and is tried again: %s", verb, subject, error)
    quiet.pass_on(rt)
