"""Bells: an idle consumer of Redis hears at once that a message has come to one of its queues.

Redis can wait at many lists only by taking from them, and at one without. So each queue has a
connection that waits there. Waiting at one after the other on a single connection would be slow:
Redis looks some ten times a second whether a wait is over.

A message rings at every consumer that waits, and one of them gets it. Where many are idle, a bell
that rang in vain is silent for a while, longer each time: so hundreds of idle workers are no more
work for Redis than their looks, and those that get messages hear of the next at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Empty
from time import monotonic
from typing import Any, NoReturn

# The same message goes back to where it was, in one step: nothing is taken.
_WAIT = "BLMOVE"
# Seconds of silence after it rang in vain once.
_SILENCE = 0.005


class Bell:
    """Waits for a message in some queues, on a connection of its own.

    To kombu's poller it is one more channel with a connection to read from.

    Args:
        channel: The consumer's channel.
        rung: Called when a wait is over, with this bell and whether a message is there.
    """

    def __init__(self, channel: Any, rung: Callable[[Bell, bool], None]) -> None:
        self._channel = channel
        self._rung = rung
        self._since: float | None = None
        self._turns = 0
        self._silence = 0.0
        self._backoff = 0.0
        self._hears = True
        self.client = channel._create_client(asynchronous=True)  # noqa: SLF001
        self.handlers = {_WAIT: self._hear}
        # The poller asks whether there is room for what it would read: nothing comes of a bell.
        self.qos = self

    def can_consume(self) -> bool:
        """As the poller asks its channels."""
        return True

    def listen(self, queues: Sequence[str], seconds: float) -> None:
        """Waits at one of the queues, the next time at the next, if it does not wait already.

        Args:
            queues: Names of the lists in Redis.
            seconds: How long to wait at all of them together.

        Raises:
            redis.exceptions.RedisError: Redis cannot be reached.
        """
        poller = self._channel.connection.cycle
        if self._since is not None and monotonic() - self._since > self._patience(seconds):
            # Nothing comes any more from a connection whose other end is gone.
            self.client.connection.disconnect()
        if not poller._client_registered(self, self.client, _WAIT):  # noqa: SLF001
            self._since = None
            poller._register(self, self.client, _WAIT)  # noqa: SLF001
        if self._since is not None:
            return
        self._hears = not self._silence
        if self._hears:
            queue, wait = queues[self._turns % len(queues)], seconds / len(queues)
            self._turns += 1
        else:
            # A list that nobody ever writes to.
            queue = self._channel._named(f"{self._channel.unacked_key}:silence")  # noqa: SLF001
            wait, self._silence = self._silence, 0.0
        self.client.connection.send_command(_WAIT, queue, queue, "RIGHT", "RIGHT", wait)
        self._since = monotonic()

    def in_vain(self, most: float) -> None:
        """Notes that it rang in vain: another consumer was faster. It is silent for a while.

        Args:
            most: Seconds that it is silent at most.
        """
        self._silence = self._backoff = min(most, self._backoff * 2 or _SILENCE)

    def took(self, pause: float) -> None:
        """Notes that messages were taken, so that the next is to be heard of, after `pause` s."""
        self._silence, self._backoff = pause, 0.0

    def _patience(self, seconds: float) -> float:
        return seconds + float(self._channel.health_check_interval or 0.0) + 1.0

    def _hear(self) -> NoReturn:
        connection = self.client.connection
        try:
            found = self.client.parse_response(connection, _WAIT)
        except self._channel.connection_errors:
            # The next round connects again.
            connection.disconnect()
            raise
        finally:
            self._since = None
        if self._channel._pending_reauth_token(connection) is not None:  # noqa: SLF001
            # Connecting again takes the new credentials.
            connection.disconnect()
        if found is None and self._hears:
            # Nobody else takes anything here either.
            self._backoff = 0.0
        self._rung(self, found is not None)
        # Nothing came of it that a caller who waits for an event could take.
        raise Empty

    def _poll_error(self, _: str) -> None:
        self._hear()
