"""Every replica ticks: due entries are claimed in Redis and sent as pipeline tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from lowtide import control, failpoints, heap, pulse, queues, quiet, runtime
from lowtide.connect import connect
from lowtide.setbacks import Setbacks
from lowtide.sweep import SWEEP_EVERY

if TYPE_CHECKING:
    from lowtide.timers import Due

logger = get_logger(__name__)
_CLAIMS_A_TICK = 100
_LOOK_EVERY = 10.0
# With so many messages in the queue, a step that is due again most likely stands there already.
_CROWDED = 500
_BATCH_STEPS = frozenset({"submit", "poll", "fetch", "deliver"})


class LowtideStep(bootsteps.StartStopStep):
    """Consumes the pipeline's queue and ticks, in the worker's main process."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self.timer: Any = None
        self.consumer = consumer
        self.runtime = runtime.of(consumer.app)
        self.setbacks = Setbacks(consumer.hostname)
        self.revokes = Revokes()
        self.pulse = pulse.Pulse(consumer.hostname)
        settings = self.runtime.settings
        queues.consume(consumer.app, settings.queue, settings.deliver_queue or settings.queue)
        heap.keep()

    def start(self, consumer: Any) -> None:
        """Starts ticking. A reconnect of the consumer comes here again, after `stop`."""
        self.timer = consumer.timer.call_repeatedly(
            self.runtime.settings.tick, self.tick, priority=10
        )
        try:
            control.ask_again(self.runtime)
        except (RedisError, OSError) as error:
            quiet.warn(logger, "redis", "Redis of the buffers does not answer yet: %s", error)

    def stop(self, consumer: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Ends ticking; called more than once by Celery."""
        timer, self.timer = self.timer, None
        if timer is not None:
            # gevent hands out a greenlet that carries the entry and is falsy when finished.
            getattr(timer, "entry", timer).cancel()

    shutdown = terminate = stop

    def tick(self) -> None:
        """Claims what is due and sends it. Never raises: the hub would restart the consumer."""
        try:
            tick(self.runtime)
            self.setbacks.look(self.runtime, connect(self.runtime.redis_url, short=True))
            quiet.pass_on(self.runtime)
            self.pulse.beat(self.runtime, watched=_sends_events(self.consumer.event_dispatcher))
            self.revokes.pass_on(self.runtime)
        except (RedisError, OSError) as error:
            quiet.warn(
                logger, "redis", "Redis of the buffers does not answer; work waits: %s", error
            )
        except Exception:
            logger.exception("A tick failed; the next one tries again")


def _sends_events(dispatcher: Any) -> bool:
    """Whether the worker tells of tasks; of itself it does in any case."""
    if dispatcher is None or not dispatcher.enabled:
        return False
    return not dispatcher.groups or "task" in dispatcher.groups


class Revokes:
    """Passes on what Celery told this worker to revoke."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._look_at = 0.0

    def pass_on(self, rt: runtime.Runtime) -> int:
        """Sends newly revoked tasks that wait in lowtide to be ended; returns how many."""
        known, clock = state.revoked, rt.clock.monotonic()
        # Celery forgets the oldest: a full set changes without growing.
        if len(known) == len(self._seen) and clock < self._look_at:
            return 0
        now = set(known)
        ours = self._send(rt, now - self._seen)
        # Only now: what could not be passed on, as Redis was away, is new at the next tick too.
        self._seen, self._look_at = now, clock + _LOOK_EVERY
        return ours

    def _send(self, rt: runtime.Runtime, fresh: set[str]) -> int:
        if not fresh:
            return 0
        from lowtide.buffer import Buffer
        from lowtide.revoke import waiting

        buffer = Buffer(connect(rt.redis_url, short=True), rt.settings, rt.clock)
        ours = waiting(buffer, fresh)
        for task_id in ours:
            # Should the message be lost, the timer sends it again.
            rt.timers.arm("revoke", task_id, rt.clock.now() + rt.settings.lease)
        if ours:
            rt.send("revoke", ours)
        return len(ours)


def tick(rt: runtime.Runtime) -> int:
    """One pass: claims due entries for one lease and sends their pipeline tasks.

    Returns:
        How many were sent.
    """
    from lowtide.timers import Timers

    timers = Timers(connect(rt.redis_url, short=True), rt.settings)
    due: Sequence[Due] = timers.claim(_CLAIMS_A_TICK, rt.settings.lease)
    if due:
        failpoints.reach("tick.claimed")
        due = _worth_sending(rt, _known(rt, due))
    polls = [entry.id for entry in due if entry.verb == "poll"]
    for entry in due:
        if entry.verb != "poll":
            rt.send(entry.verb, entry.id)
    if polls:
        rt.send("poll", polls)
    timers.arm("sweep", "all", rt.clock.now(), if_absent=True)
    # A replica whose clock is ahead may have put it off for everybody.
    timers.pull_in("sweep", "all", rt.clock.now() + SWEEP_EVERY)
    return len(due)


def _known(rt: runtime.Runtime, due: Sequence[Due]) -> Sequence[Due]:
    """All that is due but for steps that only a later release has: a worker of it takes those."""
    strange = [entry for entry in due if f"lowtide.{entry.verb}" not in rt.app.tasks]
    if strange:
        logger.warning(
            "%d steps that are due are of a later release, such as %s; start a worker of that one",
            len(strange),
            strange[0].member,
        )
    return [entry for entry in due if entry not in strange]


def _worth_sending(rt: runtime.Runtime, due: Sequence[Due]) -> Sequence[Due]:
    """All that is due, or without the steps of batches while many of those wait in the queue.

    Sent once more each lease, they would make a queue that is longer than a lease longer still.
    They are due again one lease later, so none is lost with its message.
    """
    steps = [entry for entry in due if entry.verb in _BATCH_STEPS]
    if not steps:
        return due
    try:
        names = {rt.settings.queue, rt.settings.deliver_queue or rt.settings.queue}
        crowd = sum(queues.waiting(rt.app, name) or 0 for name in names)
    except OperationalError:
        return due  # each tells by itself that the broker is away
    if crowd <= _CROWDED:
        return due
    logger.debug(
        "%d steps wait in their queue; %d that are due are not sent once more", crowd, len(steps)
    )
    return [entry for entry in due if entry.verb not in _BATCH_STEPS]
