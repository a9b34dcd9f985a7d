"""Redis as a broker: no message is lost with the consumer that was about to take it."""

from __future__ import annotations

import base64
import json
import select
import time
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty
from typing import Any

import pytest
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.messaging import Consumer
from redis import Redis

from lowtide import broker

pytestmark = pytest.mark.leaves_keys("*")
QUEUES = [Queue("first", routing_key="first"), Queue("second", routing_key="second")]


@pytest.fixture
def connection(redis_url: str) -> Iterator[Connection]:
    with Connection(redis_url, transport="lowtide.broker:Transport") as opened:
        yield opened


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
    with Connection(redis_url, transport="lowtide.broker:Transport") as dead:
        send(dead, QUEUES[0], "a")
        assert drain(dead, 1, ack=False) == ["a"]
        dead.default_channel.qos._dirty.clear()
        with Connection(
            redis_url, transport="lowtide.broker:Transport", transport_options=options
        ) as other:
            other.channel().qos.restore_visible()

            assert drain(other, 1) == ["a"]


def turns(channel: Any, count: int = 1) -> None:
    """Lets a worker's event loop go round."""
    for _ in range(count):
        with suppress(Empty):
            channel.connection.cycle.get(None, timeout=0.05)


def looks(redis: Redis) -> int:
    """How often consumers have looked into their queues."""
    return int(redis.info("commandstats").get("cmdstat_eval", {}).get("calls", 0))


def test_an_idle_consumer_hears_of_a_message_at_any_queue_and_takes_nothing_by_waiting(
    connection: Connection, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "_IDLE", 60.0)
    got: list[Any] = []
    channel = consuming(connection, got.append, prefetch=10)
    poller = channel.connection.cycle
    for queue in [*QUEUES, *reversed(QUEUES)]:
        turns(channel, 5)
        send(connection, queue, queue.name)
        # Long before it would look by itself.
        ready = select.select(list(poller.fds), [], [], 20)[0]
        assert [poller.fds[fd][1] for fd in ready] == ["BLMOVE"]
        assert redis.llen(queue.name) == 1
        before = looks(redis)
        turns(channel, 5)
        assert redis.llen(queue.name) == 0
        # There was room for more, so it knows that there is no more.
        assert looks(redis) - before == 1

    assert [message.decode() for message in got] == ["first", "second", "second", "first"]


def test_an_idle_consumer_looks_by_itself_a_few_times_a_second(
    connection: Connection, redis: Redis
) -> None:
    channel = consuming(connection, lambda _: None, prefetch=10)
    turns(channel, 5)
    before, since = looks(redis), time.monotonic()
    while time.monotonic() - since < 1:
        turns(channel)

    assert 1 <= looks(redis) - before <= 6


def test_bells_whose_connection_is_lost_ring_again(
    connection: Connection, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "_IDLE", 60.0)
    got: list[Any] = []
    channel = consuming(connection, got.append, prefetch=10)
    turns(channel, 5)
    waiting_there = [each for each in redis.client_list() if each["cmd"] == "blmove"]
    assert len(waiting_there) == len(QUEUES)
    for each in waiting_there:
        redis.client_kill(each["addr"])
    # A worker takes it for a lost broker and begins anew.
    for _ in QUEUES:
        with pytest.raises(channel.connection_errors):
            turns(channel, 5)

    turns(channel, 5)
    send(connection, QUEUES[0], "a")
    turns(channel, 5)

    assert [message.decode() for message in got] == ["a"]


def test_a_bell_that_nothing_comes_from_is_hung_anew(
    connection: Connection, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hung() -> set[str]:
        return {each["addr"] for each in redis.client_list() if each["cmd"] == "blmove"}

    channel = consuming(connection, lambda _: None, prefetch=10)
    monkeypatch.setattr(broker, "_IDLE", 60.0)
    turns(channel, 5)
    before = hung()
    # So much longer than a wait has passed that the other end must be gone.
    for bell in channel._bells:
        bell._since -= 1000
    turns(channel, 5)

    assert len(before) == len(hung()) == len(QUEUES)
    assert not before & hung()


def test_who_waits_for_an_event_waits_no_longer_than_asked(connection: Connection) -> None:
    with (
        Consumer(connection.channel(), QUEUES, callbacks=[lambda *_: None]),
        pytest.raises(TimeoutError),
    ):
        connection.drain_events(timeout=0.7)


def test_a_message_with_a_priority_is_found_without_a_bell(connection: Connection) -> None:
    got: list[Any] = []
    channel = consuming(connection, got.append, prefetch=10)
    turns(channel, 5)
    send(connection, QUEUES[1], "urgent", priority=9)

    deadline = time.monotonic() + 20
    while not got and time.monotonic() < deadline:
        turns(channel)

    assert [message.decode() for message in got] == ["urgent"]


def test_more_queues_than_bells(connection: Connection) -> None:
    many = [Queue(f"q{number}", routing_key=f"q{number}") for number in range(20)]
    got: list[str] = []

    def keep(body: str, message: Any) -> None:
        got.append(body)
        message.ack()

    with Consumer(connection.channel(), many, callbacks=[keep], prefetch_count=100):
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.5)
        for queue in many:
            send(connection, queue, queue.name)
        deadline = time.monotonic() + 20
        while len(got) < len(many) and time.monotonic() < deadline:
            connection.drain_events(timeout=20)

    assert sorted(got) == sorted(queue.name for queue in many)


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


def test_a_consumer_that_ends_leaves_no_connection(redis_url: str, redis: Redis) -> None:
    def connected() -> int:
        return len(redis.client_list())

    before = connected()
    with (
        Connection(redis_url, transport="lowtide.broker:Transport") as opened,
        Consumer(opened.channel(), QUEUES, callbacks=[lambda *_: None]),
    ):
        with suppress(TimeoutError):
            opened.drain_events(timeout=0.5)
        assert connected() > before + len(QUEUES)

    deadline = time.monotonic() + 20
    while connected() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert connected() == before


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


def test_workers_with_kombus_own_transport_share_the_queues(redis_url: str) -> None:
    with (
        Connection(redis_url) as plain,
        Connection(redis_url, transport="lowtide.broker:Transport") as ours,
    ):
        send(plain, QUEUES[0], "a")
        assert drain(ours, 1) == ["a"]
        send(ours, QUEUES[1], "b")
        assert drain(plain, 1) == ["b"]


def consuming(connection: Connection, callback: Any, *, prefetch: int) -> Any:
    """A channel whose next reply is `channel._brpop_start()` and `channel._brpop_read()` away."""
    channel = connection.channel()
    channel.basic_qos(0, prefetch, False)
    for queue in QUEUES:
        queue(channel).declare()
        channel.basic_consume(queue.name, no_ack=False, callback=callback, consumer_tag=queue.name)
    channel.client.connection = channel.client.connection_pool.get_connection()
    return channel


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
    with Connection(redis_url, transport="lowtide.broker:Transport") as dead:
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
    with Connection(redis_url, transport="lowtide.broker:Transport") as other:
        for number, each in ((1, connection), (2, other)):
            channel = consuming(
                each, lambda message, own=got[number]: own.append(message.decode()), prefetch=4
            )
            asked(channel)
            channel._brpop_read()

    assert got == {1: list("abcd"), 2: list("efgh")}
