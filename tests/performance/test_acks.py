"""Messages that were accepted together are acknowledged together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from kombu.connection import Connection
from kombu.entity import Queue
from redis import Redis

from lowtide import acks


class Request:
    """As much of Celery's request as `acks` needs."""

    def __init__(self, message) -> None:
        self.message, self.acknowledged = message, False

    def acknowledge(self) -> None:
        self.message.ack()
        self.acknowledged = True


@pytest.fixture
def consumer():
    return SimpleNamespace(
        restart_count=0,
        _maximum_prefetch_restored=True,
        connection_errors=(OSError,),
        call_soon_ack=lambda work, *args: work(*args),
    )


def received(connection: Connection, count: int) -> list[Request]:
    queue = Queue("acks")(connection)
    queue.declare()
    with connection.Producer() as producer:
        for number in range(count):
            producer.publish(number, routing_key="acks")
    found: list[Request] = []
    while len(found) < count:
        message = queue.get()
        if message is not None:
            found.append(Request(message))
    return found


def removals(redis: Redis) -> int:
    stats = redis.info("commandstats")
    return stats.get("cmdstat_zrem", {}).get("calls", 0)


@pytest.mark.leaves_keys("_kombu*")
def test_a_micro_batch_is_acknowledged_in_one_round_trip(redis_url, redis, consumer) -> None:
    with Connection(redis_url) as connection:
        requests = received(connection, 64)
        before = removals(redis)

        acks.acknowledge(consumer, requests)

        assert removals(redis) - before == 1
        assert redis.exists("unacked", "unacked_index") == 0
        assert all(request.acknowledged and request.message.acknowledged for request in requests)
        assert requests[0].message.channel.qos.can_consume()


@pytest.mark.leaves_keys("_kombu*")
def test_what_is_acknowledged_already_is_left_out(redis_url, redis, consumer) -> None:
    with Connection(redis_url) as connection:
        requests = received(connection, 3)
        requests[0].acknowledge()

        acks.acknowledge(consumer, requests)

        assert redis.exists("unacked") == 0


@pytest.mark.leaves_keys("_kombu*")
def test_after_a_reconnect_each_message_is_acknowledged_by_itself(
    redis_url, redis, consumer
) -> None:
    consumer.restart_count, consumer._maximum_prefetch_restored = 1, False
    with Connection(redis_url) as connection:
        requests = received(connection, 3)
        before = removals(redis)

        acks.acknowledge(consumer, requests)

        assert removals(redis) - before == 3


@pytest.mark.leaves_keys("_kombu*")
def test_a_broken_connection_leaves_the_messages_to_come_again(redis_url, redis, consumer) -> None:
    with Connection(redis_url) as connection:
        requests = received(connection, 2)
        channel = requests[0].message.channel
        channel._create_client, whole = _refused, channel._create_client

        acks.acknowledge(consumer, requests)

        assert redis.hlen("unacked") == 2
        channel._create_client = whole
        channel.qos.restore_unacked()


def _refused(**_):
    raise OSError("gone")


def test_other_brokers_take_their_own_way(consumer) -> None:
    with Connection("memory://") as connection:
        requests = received(connection, 2)

        acks.acknowledge(consumer, requests)

        assert all(request.message.acknowledged for request in requests)
