"""Bells: an idle consumer of Redis hears at once that a message has come to one of its queues.

Redis can wait at many lists only by taking from them, and at one without. So each queue has a
connection that waits there. Waiting at one after the other on a single connection would be slow:
Redis looks some ten times a second whether a wait is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Empty
from time import monotonic
from typing import Any, NoReturn

# The same message goes back to where it was, in one step: nothing is taken.
_WAIT = "BLMOVE"


class Bell:
    """Waits for a message in some queues, on a connection of its own.

    To kombu's poller it is one more channel with a connection to read from.

    Args:
        channel: The consumer's channel.
        rung: Called when a wait is over, with the message that is there, or None.
    """

    def __init__(self, channel: Any, rung: Callable[[bytes | None], None]) -> None:
        self._channel = channel
        self._rung = rung
        self._since: float | None = None
        self._turns = 0
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
        if self._since is None:
            queue = queues[self._turns % len(queues)]
            self._turns += 1
            wait = seconds / len(queues)
            self.client.connection.send_command(_WAIT, queue, queue, "RIGHT", "RIGHT", wait)
            self._since = monotonic()

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
        self._rung(found)
        # Nothing came of it that a caller who waits for an event could take.
        raise Empty

    def _poll_error(self, _: str) -> None:
        self._hear()
