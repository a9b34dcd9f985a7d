"""Acknowledging the messages of a micro-batch in one round trip, where the broker is Redis.

kombu's Redis transport keeps what is not acknowledged in a hash and an index, and takes each
message out by a round trip of its own. For a worker that only buffers requests this is a fifth of
its work. Other brokers, whose acknowledgements are not answered at all, take their own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery.utils.log import get_logger
from kombu.transport import redis, virtual

logger = get_logger(__name__)
_let_go: Any = virtual.QoS.ack


def acknowledge(consumer: Any, requests: Sequence[Any]) -> None:
    """Acknowledges the messages of `requests`, those left out that are acknowledged already.

    Args:
        consumer: Celery's consumer, which runs what writes to the broker when it may.
        requests: Celery's requests, from one connection.
    """
    waiting = [request for request in requests if not request.acknowledged]
    # After a reconnect each acknowledgement also gives the worker one more message to hold.
    reconnected = consumer.restart_count > 0 and not consumer._maximum_prefetch_restored  # noqa: SLF001
    if len(waiting) < 2 or reconnected or not _is_redis(waiting):
        for request in waiting:
            request.acknowledge()
        return
    messages = [request.message for request in waiting]
    consumer.call_soon_ack(_remove, messages, consumer.connection_errors)
    for request in waiting:
        request.acknowledged = True


def _is_redis(requests: Sequence[Any]) -> bool:
    channels = {id(request.message.channel) for request in requests}
    qos = getattr(requests[0].message.channel, "qos", None)
    return len(channels) == 1 and isinstance(qos, redis.QoS)


def _remove(messages: Sequence[Any], errors: tuple[type[Exception], ...]) -> None:
    """What `kombu.transport.redis.QoS.ack` does, for many messages at once."""
    qos = messages[0].channel.qos
    tags = [message.delivery_tag for message in messages]
    try:
        with qos.pipe_or_acquire() as pipe:
            pipe.zrem(qos.unacked_index_key, *tags).hdel(qos.unacked_key, *tags).execute()
    except errors as error:
        # They come again, and their requests are refused as known.
        logger.critical("%d messages could not be acknowledged: %r", len(messages), error)
        return
    for message in messages:
        _let_go(qos, message.delivery_tag)
        message._state = "ACK"  # noqa: SLF001 - as `Message.ack` does
