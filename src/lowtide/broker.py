"""Redis as a broker that loses no message with the worker that was about to take it.

kombu's transport pops a message and notes in a second step that it is not acknowledged yet. A
worker that is killed in between, or whose connection breaks, takes the message with it. Here one
script does both, for as many messages as the worker has room for.

Switched on by `app.conf.broker_transport = "lowtide.broker:Transport"`; queues and messages are
those of kombu's transport, so workers with and without it can be mixed. Behind Sentinel it is
`"lowtide.broker:SentinelTransport"`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from queue import Empty
from time import monotonic, time
from typing import Any

from celery.utils.log import get_logger
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import ConnectionError as RedisConnectionError

from lowtide.bell import Bell
from lowtide.celery_seam import parse

logger = get_logger(__name__)
# kombu's annotations are few and partly wrong.
_Channel: Any = kombu_redis.Channel
_QoS: Any = kombu_redis.QoS
_remember: Any = virtual.QoS.append
_decoded: Any = bytes_to_str
_SentinelChannel: Any = kombu_redis.SentinelChannel
_Mixin: Any = object
# Messages that one round trip takes at most. A worker is then busy with them for some ms, and its
# queues take turns after that.
_TOGETHER = 16
# A script cannot wait. So an idle consumer listens to a bell at each queue, and looks again by
# itself after so many seconds: bells are not told of messages with a priority.
_IDLE = 0.2
# Where messages come closer together than so many seconds, a consumer that took all there were
# pauses before it listens again: so it takes some together, and leaves some to others.
_RUSH = 0.02
_PAUSE = 0.01
# Further queues share the bells, whose connections come out of the channel's few.
_MOST_BELLS = 6


class QoS(_QoS):  # type: ignore[misc, unused-ignore]
    """kombu's, which notes a message that is not acknowledged; what a script noted it need not."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._noted: set[str] = set()
        super().__init__(*args, **options)

    def hold(self, tag: str) -> None:
        """Has a message that a script noted count as this consumer's: it goes back if that ends."""
        self._noted.add(tag)
        self._quick_append(tag, None)

    def give_back(self, tag: str) -> None:
        """Puts a message that nobody was given to where it was taken from."""
        self.restore_by_tag(tag)
        self._noted.discard(tag)
        self._delivered.pop(tag, None)

    def let_go(self, tag: str) -> None:
        """Has a message that nobody was given count as done."""
        self.ack(tag)
        self._noted.discard(tag)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Notes that a message was given to a consumer."""
        if delivery_tag in self._noted:
            self._noted.discard(delivery_tag)
            _remember(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)


class _Takes(_Mixin):
    """Takes messages by script; all else is the channel's that this is mixed into."""

    QoS = QoS
    _asked: Sequence[str] = ()
    _room = _TOGETHER
    _looked = 0.0
    _took = 0.0
    _is_idle = False
    _rang: Bell | None = None
    _kept: Any = None

    def __init__(self, *args: Any, **options: Any) -> None:
        self._unnoted: set[str] = set()
        self._bells: list[Bell] = []
        super().__init__(*args, **options)

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002 - kombu's own
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        if self._is_idle:
            self._listen()
            return
        self._asked = self._by_priority(queues)
        self._in_poll = self.client.connection
        self._brpop_sent_at = self._looked = monotonic()
        self.client.connection.send_command(*self._take())

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **options: Any) -> Any:  # noqa: FBT001 - kombu's own
        # What is never acknowledged, such as replies to `celery inspect`, is taken and no more.
        (self._unnoted.add if no_ack else self._unnoted.discard)(queue)
        return super().basic_consume(queue, no_ack, *args, **options)

    def _queue(self, name: str) -> str:
        return name.rsplit(self.sep, 1)[0]

    def _by_priority(self, queues: Sequence[str]) -> list[str]:
        return [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]

    def _take(self) -> list[Any]:
        names = [self.unacked_key, self.unacked_index_key, *self._asked]
        noted = "".join(str(int(self._queue(name) not in self._unnoted)) for name in self._asked)
        self._room = min(self.qos.can_consume_max_estimate() or 1, _TOGETHER)
        keys = map(self._named, names)
        return ["EVAL", _script(), len(names), *keys, repr(time()), noted, self._room]

    def _listen(self) -> None:
        queues = [self._named(queue) for queue in sorted(self.active_queues)]
        count = min(len(queues), _MOST_BELLS)
        while len(self._bells) < count:
            self._bells.append(Bell(self, self._rung))
        for number in range(count):
            self._bells[number].listen(queues[number::count], _IDLE)

    def _rung(self, bell: Bell, is_there: bool) -> None:  # noqa: FBT001 - called by bells alone
        if is_there or monotonic() - self._looked >= _IDLE:
            self._is_idle = False
            self._rang = bell if is_there else None

    def _brpop_read(self, **options: Any) -> bool:
        try:
            try:
                found = self.client.parse_response(self.client.connection, "EVAL", **options)
            except self.connection_errors:
                # The next round connects again.
                self.client.connection.disconnect()
                raise
            # Where it left room, no more was there; after what is not noted it stopped by itself.
            self._is_idle = len(found) < 3 * self._room and b"" not in found[-1:]
            rang, self._rang = self._rang, None
            if not found:
                if rang is not None:
                    rang.in_vain(_IDLE)
                raise Empty
            now = monotonic()
            pause = _PAUSE if now - self._took < _RUSH else 0.0
            self._took = now
            for bell in self._bells:
                bell.took(pause)
            self._give_out(found)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _give_out(self, found: list[Any]) -> None:
        """Gives the messages of a script's reply to their consumers."""
        taken = deque(
            (self._queue(self._asked[found[at]]), found[at + 1], _decoded(found[at + 2]))
            for at in range(0, len(found), 3)
        )
        for _, _, tag in taken:
            if tag:
                self.qos.hold(tag)
        try:
            while taken:
                queue, message, tag = taken[0]
                if tag and queue not in self.connection._callbacks:  # noqa: SLF001
                    break  # the consumer was cancelled meanwhile
                taken.popleft()
                self._queue_cycle.rotate(queue)
                self._give(message, queue, tag)
        finally:
            # What nobody was given must not wait until this consumer counts as dead. Where the
            # connection is lost it goes back with it, like all that it holds.
            with suppress(*self.connection_errors):
                for _, _, tag in reversed(taken):
                    self.qos.give_back(tag)

    def _give(self, message: bytes, queue: str, tag: str) -> None:
        """Gives one message to its consumer. What is none must stop neither that nor its queue."""
        try:
            self.connection._deliver(parse(message), queue)  # noqa: SLF001
        except Exception:
            if self._is_message(message):
                raise
            self._throw_away(message, queue, tag)

    def _throw_away(self, message: bytes, queue: str, tag: str) -> None:
        if tag:
            self.qos.let_go(tag)
        logger.error(
            "The broker's queue %r held %d bytes that are no message; they were thrown away. "
            "Find out who else writes there.",
            queue,
            len(message),
        )

    def _is_message(self, message: bytes) -> bool:
        try:
            about = self.Message(parse(message), channel=self).delivery_info
        except Exception:
            return False
        return isinstance(about, dict) and about.keys() >= {"exchange", "routing_key"}

    def _connparams(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's own
        # kombu closes a lost connection by giving back its messages, and may not know any more
        # where to: that must be a lost connection like any other, not the worker's end.
        if self.connection.client is None:
            raise RedisConnectionError("The connection to the broker is closed")
        return super()._connparams(asynchronous=asynchronous)

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's own
        """A client; for what is done at once always the same one, as long as its pool lives.

        kombu makes one for each command, which takes as long as the command. It is no more than
        its pool, and safe for threads.
        """
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()
        return self._kept

    def _named(self, key: str) -> str:
        return f"{self.global_keyprefix}{key}"


class Channel(_Takes, _Channel):
    """A channel of Redis."""


class SentinelChannel(_Takes, _SentinelChannel):
    """A channel of Redis behind Sentinel."""


class Transport(kombu_redis.Transport):
    """kombu's Redis transport with the channel above."""

    Channel = Channel


class SentinelTransport(kombu_redis.SentinelTransport):
    """The same behind Sentinel."""

    Channel = SentinelChannel


@cache
def _script() -> str:
    return (files("lowtide") / "lua" / "take.lua").read_text("utf-8")
