"""Redis as a broker: an idle consumer hears of a message at once, and takes nothing by waiting."""

from __future__ import annotations

import select
import time
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.messaging import Consumer
from redis import Redis

from lowtide import broker
from tests.faults.redis_broker import QUEUES, consuming, send, transport, turns

pytestmark = pytest.mark.leaves_keys("*")


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


def test_many_idle_consumers_do_not_all_look_for_each_message(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "_IDLE", 60.0)
    messages, got = 100, list[Any]()
    with ExitStack() as opened:
        channels = [
            consuming(opened.enter_context(transport(redis_url)), got.append, prefetch=1000)
            for _ in range(8)
        ]
        for channel in channels:
            turns(channel, 5)
        before = looks(redis)
        for number in range(messages):
            send(channels[0].connection.client, QUEUES[0], str(number))
            deadline = time.monotonic() + 20
            while len(got) <= number and time.monotonic() < deadline:
                for channel in channels:
                    turns(channel, timeout=0.001)

        assert len(got) == messages
        assert looks(redis) - before < messages * len(channels) / 2


def test_a_bell_that_rang_in_vain_rings_again(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "_IDLE", 60.0)
    first, second = list[Any](), list[Any]()
    with transport(redis_url) as one, transport(redis_url) as other:
        faster = consuming(one, first.append, prefetch=10)
        slower = consuming(other, second.append, prefetch=10)
        turns(faster, 5)
        turns(slower, 5)
        send(one, QUEUES[0], "a")
        turns(faster, 5)
        before = looks(redis)
        turns(slower, 5)
        assert (len(first), looks(redis) - before) == (1, 1)

        send(one, QUEUES[0], "b")
        deadline = time.monotonic() + 20
        while not second and time.monotonic() < deadline:
            turns(slower)

    assert [message.decode() for message in second] == ["b"]


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


def test_a_consumer_that_ends_leaves_no_connection(redis_url: str, redis: Redis) -> None:
    def connected() -> set[str]:
        return {each["addr"] for each in redis.client_list()}

    before = connected()
    with (
        transport(redis_url) as opened,
        Consumer(opened.channel(), QUEUES, callbacks=[lambda *_: None]),
    ):
        with suppress(TimeoutError):
            opened.drain_events(timeout=0.5)
        its_own = connected() - before
        assert len(its_own) > len(QUEUES)

    deadline = time.monotonic() + 20
    while connected() & its_own and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not connected() & its_own
