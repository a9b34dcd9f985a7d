"""Tell: what waits in the outbox for a destination is sent, until it is accepted.

Each message is sent at least once: a replica that dies after it sent some, or stands still for
longer than its lease, lets another send them again, under the same id. None is given up.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery.utils.log import get_logger
from redis.exceptions import RedisError

from lowtide import control, failpoints, keys, messages, senders
from lowtide.carried import RESULTS
from lowtide.decide import backoff
from lowtide.destinations import KEPT
from lowtide.errors import SettingsError
from lowtide.ledger import Backlog, Message, Postponed
from lowtide.pipeline import Next
from lowtide.senders import Refused, Sender

if TYPE_CHECKING:
    from lowtide.runtime import Runtime

logger = get_logger(__name__)
_AT_ONCE = 400
# A pass gives back what it does not get to within this share of its lease.
_PASS_SHARE = 0.5
LOOK_EVERY = 60.0
"""Seconds between two looks at a destination that is paused, or is not in the settings."""
PATIENCE = 900.0
"""Seconds after which somebody is told that a destination does not accept its messages."""
_ALERT_EVERY = 3600


def tell(rt: Runtime, destination: str) -> Next | None:
    """One pass: sends what is due for a destination.

    Args:
        rt: The runtime.
        destination: Name in the outbox.

    Returns:
        The next pass; None when nothing waits.
    """
    if rt.ledger.next_message(destination) is None:
        return None
    later = Next("tell", destination, at=rt.clock.now() + LOOK_EVERY)
    if subject(destination) in control.pauses(rt):
        return later
    try:
        sender = senders.sender(rt, destination)
    except SettingsError as error:
        _say(rt, destination, f"nothing is sent: {error.message}")
        return later
    with contextlib.closing(sender):
        wait = _Pass(rt, destination, sender).run()
    if wait is not None:
        _alert(rt, destination)
    at = rt.ledger.next_message(destination)
    if at is None:
        return None
    now = rt.clock.now()
    if wait is None and at <= now:
        return Next("tell", destination)
    return Next("tell", destination, at=max(at, now + (wait or 0.0)))


def subject(destination: str) -> str:
    """What `lowtide pause` and `resume` name a destination by."""
    return control.TO + destination


def shown(destination: str) -> str:
    """A destination for people."""
    if destination == KEPT:
        return "the results that are kept"
    plain = destination.removeprefix(RESULTS)
    return f"{'destination' if plain == destination else 'result backend'} {plain}"


@dataclass(slots=True)
class _Pass:
    """One pass over what is due for one destination."""

    rt: Runtime
    destination: str
    sender: Sender
    token: str = ""

    def run(self) -> float | None:
        """Sends; gives the seconds to leave the destination alone, None when it accepts."""
        rt, lease = self.rt, self.rt.settings.lease
        self.token = f"{rt.owner}:{uuid.uuid4().hex[:12]}"
        until = rt.clock.monotonic() + lease * _PASS_SHARE
        taken = rt.ledger.take(self.destination, self.token, _AT_ONCE, lease)
        size = self.sender.wave
        waves = [taken[first : first + size] for first in range(0, len(taken), size)]
        wait = None
        while waves and wait is None and rt.clock.monotonic() < until:
            wait = self._wave(waves.pop(0))
        left = [message.custom_id for wave in waves for message in wave]
        if left:
            rt.ledger.give_back(self.destination, self.token, left)
        return wait

    def _wave(self, wave: Sequence[Message]) -> float | None:
        answers = self._send(wave)
        failpoints.reach("tell.sent")
        told = [each.custom_id for each, refused in zip(wave, answers, strict=True) if not refused]
        failed = [(each, no) for each, no in zip(wave, answers, strict=True) if no]
        if told:
            self.rt.ledger.sent(self.destination, self.token, told)
        failpoints.reach("tell.noted")
        later = [self._later(message, refused) for message, refused in failed]
        self.rt.ledger.postpone_messages(self.destination, self.token, later)
        _count(self.rt, self.destination, accepted=len(told), refused=len(failed))
        if any(refused.gone for _, refused in failed):
            self._gone()
        return None if told else min(each.at for each in later) - self.rt.clock.now()

    def _send(self, wave: Sequence[Message]) -> list[Refused | None]:
        read: list[messages.Told | Refused] = []
        for message in wave:
            try:
                read.append(messages.unpack(self.rt.app, message.blob))
            except Exception as error:
                read.append(Refused(f"the entry cannot be read: {type(error).__name__}"))
        answers = iter(self.sender.send([each for each in read if not isinstance(each, Refused)]))
        return [each if isinstance(each, Refused) else next(answers) for each in read]

    def _later(self, message: Message, refused: Refused) -> Postponed:
        wait = backoff(message.attempts + 1, self.rt.settings.retry_delay)
        at = self.rt.clock.now() + max(wait, refused.wait or 0.0)
        return Postponed(message.custom_id, at, refused.reason)

    def _gone(self) -> None:
        name = subject(self.destination)
        control.pause(self.rt, name, "it answered 410 Gone: it wants no more messages")
        logger.error(
            "Destination %s answered 410 Gone: nothing more is sent to it, and what waits is "
            "kept. `lowtide resume %s` tries again; `lowtide outbox --drop %s` lets go of it.",
            self.destination,
            name,
            self.destination,
        )


def _alert(rt: Runtime, destination: str) -> None:
    """Says, once an hour, that a destination has not accepted something for a while."""
    for backlog in rt.ledger.backlogs(destination):
        if is_late(backlog, rt.clock.now()):
            why = f"; the last reason: {backlog.error}" if backlog.error else ""
            _say(rt, destination, f"{backlog.failing:,} messages are not accepted{why}")


def is_late(backlog: Backlog, now: float) -> bool:
    """Whether a destination has not accepted something for so long that somebody should look."""
    return now - backlog.since > PATIENCE


def _say(rt: Runtime, destination: str, what: str) -> None:
    key = keys.alerted(rt.settings.namespace, destination)
    if rt.redis.set(key, 1, nx=True, ex=_ALERT_EVERY):
        logger.error("%s: %s. They wait; none is given up.", shown(destination).capitalize(), what)


def counts(rt: Runtime) -> dict[tuple[str, str], int]:
    """How many messages were "accepted" and "refused", by (destination, which)."""
    found: Any = rt.redis.hgetall(keys.told_counts(rt.settings.namespace))
    return {
        (destination, which): int(value)
        for name, value in found.items()
        for destination, _, which in [name.decode().rpartition(" ")]
    }


def _count(rt: Runtime, destination: str, **counted: int) -> None:
    key = keys.told_counts(rt.settings.namespace)
    pipe: Any = rt.redis.pipeline(transaction=True)
    for which, count in counted.items():
        if count and destination != KEPT:
            pipe.hincrby(key, f"{destination} {which}", count)
    pipe.expire(key, max(1, round(rt.settings.state_ttl)))
    with contextlib.suppress(RedisError):  # for people only
        pipe.execute()
