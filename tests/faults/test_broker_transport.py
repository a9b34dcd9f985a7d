"""Redis as a broker: no message is lost with the consumer that was about to take it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from kombu.connection import Connection
from kombu.messaging import Consumer
from redis import Redis

from tests.faults.redis_broker import QUEUES, consuming, drain, send, transport

pytestmark = pytest.mark.leaves_keys("*")


def test_messages_of_all_queues_come_once_each(connection: Connection, redis: Redis) -> None:
    send(connection, QUEUES[0], "a", "b")
    send(connection, QUEUES[1], "c")

    assert sorted(drain(connection, 3)) == ["a", "b", "c"]
    assert redis.hlen("unacked") == redis.zcard("unacked_index") == 0
    assert redis.llen("first") == redis.llen("second") == 0


def test_urgent_ones_come_first(connection: Connection) -> None:
    send(connection, QUEUES[0], "late", priority=9)
    send(connection, QUEUES[0], "soon", priority=0)

    assert drain(connection, 2) == ["soon", "late"]


def test_a_message_is_never_in_neither_place(connection: Connection, redis: Redis) -> None:
    send(connection, QUEUES[0], "a")
    channel = connection.channel()
    channel.basic_consume("first", no_ack=False, callback=lambda _: None, consumer_tag="t")

    # The consumer asks and dies before it reads the answer.
    channel.client.connection = channel.client.connection_pool.get_connection()
    channel._brpop_start()
    channel.client.connection.can_read(timeout=5)
    channel.client.connection.disconnect()

    assert redis.llen("first") == 0
    assert redis.hlen("unacked") == redis.zcard("unacked_index") == 1


def test_what_a_dead_consumer_had_is_given_to_another(redis_url: str) -> None:
    options = {"visibility_timeout": 0, "unacked_restore_limit": None}
    with transport(redis_url) as dead:
        send(dead, QUEUES[0], "a")
        assert drain(dead, 1, ack=False) == ["a"]
        dead.default_channel.qos._dirty.clear()
        with Connection(
            redis_url, transport="lowtide.broker:Transport", transport_options=options
        ) as other:
            other.channel().qos.restore_visible()

            assert drain(other, 1) == ["a"]


def test_one_client_serves_a_channel_until_its_connections_are_closed(
    connection: Connection,
) -> None:
    channel = connection.channel()
    with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
        assert first is second
        assert first.ping()
    # What consumers wait with is their own.
    assert channel._create_client(asynchronous=True) is not channel._create_client(
        asynchronous=True
    )

    channel._disconnect_pools()

    with channel.conn_or_acquire() as third:
        assert third is not first
        assert third.ping()


def test_what_is_not_acknowledged_is_taken_and_no_more(
    connection: Connection, redis: Redis
) -> None:
    send(connection, QUEUES[0], "a")
    send(connection, QUEUES[1], "b")
    got: list[str] = []

    def keep(body: str, _: Any) -> None:
        got.append(body)

    with (
        Consumer(connection.channel(), QUEUES[:1], callbacks=[keep], no_ack=True),
        Consumer(connection.channel(), QUEUES[1:], callbacks=[keep]),
    ):
        while len(got) < 2:
            connection.drain_events(timeout=20)

        [held] = redis.hvals("unacked")

    assert b'"routing_key": "second"' in held
    assert sorted(got) == ["a", "b"]


FOREIGN = {
    "not JSON": b"{",
    "not text": b'{"a": "\xff"}',
    "a number": b"5",
    "nothing": b"null",
    "a list": b"[[]]",
    "another's": b'{"hello": 1}',
    "properties that are none": b'{"properties": 1}',
    "no delivery info": b'{"properties": {"delivery_tag": "x"}}',
    "no exchange": b'{"properties": {"delivery_tag": "x", "delivery_info": {}}}',
    "too deep": b"[" * 100_000 + b"]" * 100_000,
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_message_stops_no_queue(
    connection: Connection, redis: Redis, caplog: pytest.LogCaptureFixture, foreign: bytes
) -> None:
    redis.rpush("first", foreign)
    send(connection, QUEUES[0], "a")
    send(connection, QUEUES[1], "b")

    assert sorted(drain(connection, 2)) == ["a", "b"]

    assert redis.llen("first") == redis.hlen("unacked") == redis.zcard("unacked_index") == 0
    [line] = [each.getMessage() for each in caplog.records]
    assert "'first'" in line
    assert f"{len(foreign)} bytes that are no message" in line


def test_a_message_whose_body_cannot_be_read_stops_no_queue(
    connection: Connection, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    send(connection, QUEUES[0], "broken")
    [raw] = redis.lrange("first", 0, -1)
    redis.delete("first")
    message = json.loads(raw)
    message["body"] = "a"
    redis.rpush("first", json.dumps(message))
    send(connection, QUEUES[0], "a")

    assert drain(connection, 1) == ["a"]

    assert redis.hlen("unacked") == redis.zcard("unacked_index") == 0
    assert "are no message" in caplog.text


def test_workers_with_kombus_own_transport_share_the_queues(redis_url: str) -> None:
    with (
        Connection(redis_url) as plain,
        transport(redis_url) as ours,
    ):
        send(plain, QUEUES[0], "a")
        assert drain(ours, 1) == ["a"]
        send(ours, QUEUES[1], "b")
        assert drain(plain, 1) == ["b"]


def asked(channel: Any) -> None:
    """Sends the script, and waits until its reply is there."""
    channel._brpop_start()
    assert channel.client.connection.can_read(timeout=5)


def waiting(redis: Redis, queue: str = "first") -> list[bytes]:
    """Bodies that wait in a queue, the next one first."""
    return [
        json.loads(message)["body"].encode() for message in reversed(redis.lrange(queue, 0, -1))
    ]


def bodies(*texts: str) -> list[bytes]:
    return [base64.b64encode(json.dumps(text).encode()) for text in texts]


def test_as_many_are_taken_together_as_there_is_room_for(
    connection: Connection, redis: Redis
) -> None:
    send(connection, QUEUES[0], "a", "b", "c", "d")
    send(connection, QUEUES[1], "e")
    got: list[Any] = []
    channel = consuming(connection, got.append, prefetch=3)

    asked(channel)
    channel._brpop_read()

    assert [message.decode() for message in got] == ["a", "b", "c"]
    assert not channel.qos.can_consume()
    got[0].ack()
    asked(channel)
    channel._brpop_read()
    # The queues take turns, and what is not acknowledged takes up room.
    assert [message.decode() for message in got] == ["a", "b", "c", "e"]
    assert waiting(redis) == bodies("d")
    assert redis.hlen("unacked") == redis.zcard("unacked_index") == 3
    [message.ack() for message in got[1:]]
    assert redis.hlen("unacked") == redis.zcard("unacked_index") == 0


def test_a_message_is_noted_once(connection: Connection, redis: Redis) -> None:
    def noted() -> int:
        return redis.info("commandstats").get("cmdstat_zadd", {}).get("calls", 0)

    send(connection, QUEUES[0], *"abcd")
    before = noted()

    assert drain(connection, 4) == list("abcd")
    assert noted() - before == 4


def test_a_consumer_without_a_limit_gets_one_at_a_time(connection: Connection) -> None:
    send(connection, QUEUES[0], "a", "b")
    got: list[Any] = []
    channel = consuming(connection, got.append, prefetch=0)

    asked(channel)
    channel._brpop_read()

    assert [message.decode() for message in got] == ["a"]


def test_what_a_consumer_did_not_get_goes_back_in_its_order(
    connection: Connection, redis: Redis
) -> None:
    send(connection, QUEUES[0], "a", "b", "c")

    def refuse(_: Any) -> None:
        raise ZeroDivisionError

    channel = consuming(connection, refuse, prefetch=10)
    asked(channel)
    with pytest.raises(ZeroDivisionError):
        channel._brpop_read()

    assert waiting(redis) == bodies("b", "c")
    # The first was given out: it is the consumer's until that acknowledges it, or ends.
    assert redis.hlen("unacked") == redis.zcard("unacked_index") == 1
    assert len(channel.qos._delivered) == 1


def test_a_consumer_that_ends_gives_back_what_is_on_its_way(
    connection: Connection, redis: Redis
) -> None:
    send(connection, QUEUES[0], "a", "b", "c")
    channel = consuming(connection, lambda _: None, prefetch=10)
    asked(channel)
    assert waiting(redis) == []

    channel.basic_cancel("first")
    channel.close()

    assert waiting(redis) == bodies("a", "b", "c")
    assert redis.hlen("unacked") == redis.zcard("unacked_index") == 0


def test_what_a_dead_consumer_was_about_to_get_is_given_to_another(redis_url: str) -> None:
    options = {"visibility_timeout": 0, "unacked_restore_limit": None}
    with transport(redis_url) as dead:
        send(dead, QUEUES[0], "a", "b", "c")
        channel = consuming(dead, lambda _: None, prefetch=10)
        asked(channel)
        channel.client.connection.disconnect()
        with Connection(
            redis_url, transport="lowtide.broker:Transport", transport_options=options
        ) as other:
            other.channel().qos.restore_visible()

            assert sorted(drain(other, 3)) == ["a", "b", "c"]
        channel._in_poll = None


def test_consumers_share_what_is_there(redis_url: str, connection: Connection) -> None:
    send(connection, QUEUES[0], *"abcdefgh")
    got: dict[int, list[str]] = {1: [], 2: []}
    with transport(redis_url) as other:
        for number, each in ((1, connection), (2, other)):
            channel = consuming(
                each, lambda message, own=got[number]: own.append(message.decode()), prefetch=4
            )
            asked(channel)
            channel._brpop_read()

    assert got == {1: list("abcd"), 2: list("efgh")}
