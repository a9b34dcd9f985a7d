"""Redis as a broker that loses no message with the worker that was about to take it.

kombu's transport pops a message and notes in a second step that it is not acknowledged yet. A
worker that is killed in between, or whose connection breaks, takes the message with it. Here one
script does both. Switched on by `app.conf.broker_transport = "lowtide.broker:Transport"`; queues
and messages are those of kombu's transport, so workers with and without it can be mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from queue import Empty
from time import monotonic, time
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import ConnectionError as RedisConnectionError

# kombu's annotations are few and partly wrong.
_Channel: Any = kombu_redis.Channel
_decoded: Any = bytes_to_str
_message: Any = loads
# A script cannot wait, so an idle consumer looks again after this, in seconds.
_IDLE = 0.2


class Channel(_Channel):
    """Takes messages by script; all else is kombu's."""

    _idle = False
    _asked: Sequence[str] = ()

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002 - kombu's own
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        command: list[Any]
        if self._idle:
            self._asked = ()
            command = ["BRPOP", f"{self._named(self.unacked_key)}_idle", _IDLE]
        else:
            self._asked = [
                self._q_for_pri(queue, pri) for pri in self.priority_steps for queue in queues
            ]
            names = [self.unacked_key, self.unacked_index_key, *self._asked]
            command = ["EVAL", _script(), len(names), *map(self._named, names), repr(time())]
        self._idle = False
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self.client.connection.send_command(*command)

    def _brpop_read(self, **options: Any) -> bool:
        try:
            try:
                found = self.client.parse_response(self.client.connection, "EVAL", **options)
            except self.connection_errors:
                # The next round connects again.
                self.client.connection.disconnect()
                raise
            if not found:
                self._idle = bool(self._asked)
                raise Empty
            queue = self._asked[found[0]].rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            self.connection._deliver(_message(_decoded(found[1])), queue)  # noqa: SLF001
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _connparams(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's own
        # kombu closes a lost connection by giving back its messages, and may not know any more
        # where to: that must be a lost connection like any other, not the worker's end.
        if self.connection.client is None:
            raise RedisConnectionError("The connection to the broker is closed")
        return super()._connparams(asynchronous=asynchronous)

    def _named(self, key: str) -> str:
        return f"{self.global_keyprefix}{key}"


class Transport(kombu_redis.Transport):
    """kombu's Redis transport with the channel above."""

    Channel = Channel


@cache
def _script() -> str:
    return (files("lowtide") / "lua" / "take.lua").read_text("utf-8")
