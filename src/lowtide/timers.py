"""What is due when: one sorted set, from which each due entry goes to one replica.

Times are seconds since the epoch by the Redis server's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis import Redis

from lowtide import keys, scripts
from lowtide.clock import Clock, SystemClock

if TYPE_CHECKING:
    from lowtide.settings import Settings


@dataclass(frozen=True, slots=True)
class Due:
    """A timer that was claimed.

    Attributes:
        verb: The pipeline step, such as "seal" or "poll".
        id: Lane key, batch id, task id or destination; "all" where there is one for all.
        due: When it was due, epoch seconds.
    """

    verb: str
    id: str
    due: float

    @property
    def member(self) -> str:
        """As it is stored."""
        return f"{self.verb}:{self.id}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many timers there are.

    Attributes:
        total: All.
        due: Those whose time has come and that nobody holds a lease on.
        late: Seconds that the longest due one has waited, 0.0 when none is due.
    """

    total: int
    due: int
    late: float


class Timers:
    """The timers of a deployment.

    Args:
        redis: Where they are.
        settings: For the namespace.
        clock: The system's clock stands for the server's time; any other one goes before it,
            so that tests move time by hand.
    """

    def __init__(self, redis: Redis, settings: Settings, clock: Clock | None = None) -> None:
        self._redis = redis
        self._key = keys.timers(settings.namespace)
        self._clock = clock

    def claim(self, limit: int, lease: float) -> list[Due]:
        """Takes at most `limit` due timers, the longest due first.

        Each is due again `lease` seconds from now, unless it is armed or disarmed until then: so
        one replica gets it, and another one when that replica died.
        """
        call = scripts.Call("claim", [self._key], [script_time(self._clock), limit, lease])
        flat = scripts.run(self._redis, [call])[0]
        found = []
        for member, due in zip(flat[::2], flat[1::2], strict=True):
            verb, _, subject = member.decode().partition(":")
            found.append(Due(verb, subject, float(due)))
        return found

    def arm(self, verb: str, subject: str, at: float, *, if_absent: bool = False) -> bool:
        """Sets when `verb` is due for `subject`, also to a later time than before.

        Args:
            verb: The pipeline step.
            subject: As `Due.id`.
            at: Epoch seconds.
            if_absent: Leave a timer that is there as it is.

        Returns:
            Whether there was none before.
        """
        member = {f"{verb}:{subject}": at}
        return bool(self._redis.zadd(self._key, member, nx=if_absent))

    def pull_in(self, verb: str, subject: str, at: float) -> bool:
        """Makes `verb` due at `at`, unless it is due earlier already.

        Returns:
            Whether that changed anything.
        """
        return bool(self._redis.zadd(self._key, {f"{verb}:{subject}": at}, lt=True, ch=True))

    def disarm(self, verb: str, subject: str) -> bool:
        """Forgets the timer; returns whether there was one."""
        return bool(self._redis.zrem(self._key, f"{verb}:{subject}"))

    def due_at(self, verb: str, subject: str) -> float | None:
        """When `verb` is due for `subject`; None when it is not armed."""
        score = self._redis.zscore(self._key, f"{verb}:{subject}")
        return None if score is None else float(score)

    def waiting(self) -> Waiting:
        """How many timers there are, and how late they are."""
        given = script_time(self._clock)
        if given == "":
            whole, micro = self._redis.time()
            now = whole + micro / 1_000_000
        else:
            now = float(given)
        pipe = self._redis.pipeline(transaction=False)
        pipe.zcard(self._key)
        pipe.zcount(self._key, "-inf", now)
        pipe.zrange(self._key, 0, 0, withscores=True)
        total, due, first = pipe.execute()
        return Waiting(total, due, max(0.0, now - first[0][1]) if first else 0.0)


def script_time(clock: Clock | None) -> float | str:
    """The "now" argument of a script: "" for the server's own time."""
    return "" if clock is None or isinstance(clock, SystemClock) else clock.now()
