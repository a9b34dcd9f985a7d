"""A consumer of lowtide's Redis transport, step by step."""

from __future__ import annotations

import time
from contextlib import suppress
from queue import Empty
from typing import Any

from kombu.connection import Connection
from kombu.entity import Queue
from kombu.messaging import Consumer

QUEUES = [Queue("first", routing_key="first"), Queue("second", routing_key="second")]


def send(connection: Connection, queue: Queue, *bodies: str, priority: int = 0) -> None:
    producer = connection.Producer()
    for body in bodies:
        producer.publish(
            body, routing_key=queue.name, declare=[queue], priority=priority, serializer="json"
        )


def drain(connection: Connection, take: int, *, ack: bool = True) -> list[str]:
    """Bodies of the next `take` messages, as a worker's event loop gets them."""
    got: list[str] = []

    def keep(body: str, message: Any) -> None:
        got.append(body)
        if ack:
            message.ack()

    with Consumer(connection.channel(), QUEUES, callbacks=[keep], prefetch_count=100):
        deadline = time.monotonic() + 20
        while len(got) < take and time.monotonic() < deadline:
            connection.drain_events(timeout=20)
    return got


def transport(url: str) -> Connection:
    """A connection by lowtide's transport."""
    return Connection(url, transport="lowtide.broker:Transport")


def turns(channel: Any, count: int = 1, timeout: float = 0.05) -> None:
    """Lets a worker's event loop go round."""
    for _ in range(count):
        with suppress(Empty):
            channel.connection.cycle.get(None, timeout=timeout)


def consuming(connection: Connection, callback: Any, *, prefetch: int) -> Any:
    """A channel whose next reply is `channel._brpop_start()` and `channel._brpop_read()` away."""
    channel = connection.channel()
    channel.basic_qos(0, prefetch, False)
    for queue in QUEUES:
        queue(channel).declare()
        channel.basic_consume(queue.name, no_ack=False, callback=callback, consumer_tag=queue.name)
    channel.client.connection = channel.client.connection_pool.get_connection()
    return channel
