"""Waiting requests: bytes of Redis for each, and whether a million of them slow anything down."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

from redis import Redis

from benchmarks.figure import Figure
from benchmarks.options import Options
from benchmarks.stack import stack
from benchmarks.texts import texts
from lowtide.buffer import Buffer
from lowtide.calls import chat
from lowtide.clock import SystemClock
from lowtide.envelope import Body, Envelope
from lowtide.lane import Lane
from lowtide.request import Request, encode
from lowtide.settings import Settings
from lowtide.timers import Timers

_BODY = 4_000
_APPEND = 64
_LANES = 10
_LINKS = ("callbacks", "errbacks", "chain", "chord")
_SENDER = str(uuid4())


def run(options: Options) -> Iterator[Figure]:
    """On a Valkey of its own, by the server's own clocks and counters."""
    with stack(simulator=False) as running:
        yield _bytes(running.client(0), options)
        yield from _waiting(running.client(1), running.client(2), options)


def request(number: int, text: str, model: str = "gpt-5-mini") -> Request:
    """A request as a worker makes it of the message of a `delay`, which holds its argument."""
    call = chat(f"Summarise the text.\n\n{text}", model=model)
    lane, body, tokens = encode(call, account="default")
    task_id = f"{number:08x}-0000-4000-8000-{number:012x}"
    envelope = Envelope(
        body=Body.of((text,), {}, dict.fromkeys(_LINKS), "json").data,
        accepted_at=time.time(),
        ignore_result=False,
        delivery=(None, "celery", 0),
        reply_to=_SENDER,
        origin=f"gen{os.getpid()}@{socket.gethostname()}",
    )
    return Request(
        f"{task_id}.0.0", task_id, "tasks.summarize", lane, body, envelope.pack(), tokens
    )


def _bytes(redis: Redis, options: Options) -> Figure:
    buffer = Buffer(redis, Settings(), SystemClock())
    count = options.scaled(5_000)
    held, bodies = [], []
    for _ in range(options.rounds):
        redis.flushdb()
        made = [request(number, text) for number, text in enumerate(texts(count, _BODY))]
        before = redis.info("memory")["used_memory"]
        buffer.append(made)
        held.append((redis.info("memory")["used_memory"] - before) / count)
        bodies.append(sum(len(each.body) for each in made) / count)
    redis.flushdb()
    name = "Redis bytes for each waiting request of 4 kB of prose, all keys"
    return Figure(name, "the body", 0.5, held, bodies, unit="bytes")


def _waiting(quiet: Redis, busy: Redis, options: Options) -> Iterator[Figure]:
    """The server's time for one call, with 1,000 waiting and with a million, in turn."""
    few, many = 1_000, options.scaled(1_000_000)
    settings = Settings(max_requests=100_000, max_bytes=200_000_000, max_tokens=10**12)
    _fill(quiet, settings, few)
    _fill(busy, settings, many)
    for name, make in (("append of 64 requests", _append), ("seal", _seal), ("tick", _tick)):
        small, large = make(quiet, settings), make(busy, settings)
        theirs, ours = [], []
        for part in range(1 + 2 * options.rounds):
            theirs.append(_timed(quiet, small, part))
            ours.append(_timed(busy, large, part))
        what = f"{name} with {many:,} requests waiting, server time"
        yield Figure(what, f"with {few:,} waiting", 1.1, ours[1:], theirs[1:])
    quiet.flushdb()
    busy.flushdb()


def _fill(redis: Redis, settings: Settings, count: int) -> None:
    buffer = Buffer(redis, settings, SystemClock())
    for at in range(0, count, 5_000):
        model = f"model-{at // max(1, count // _LANES)}"
        lane = Lane("default", "/v1/chat/completions", model)
        names = [f"{n:08x}-0000-4000-8000-{n:012x}" for n in range(at, min(at + 5_000, count))]
        buffer.append(Request(f"{n}.0.0", n, "t", lane, b"{}", b"", 1) for n in names)


def _append(redis: Redis, settings: Settings) -> Callable[[int], object]:
    buffer = Buffer(redis, settings, SystemClock())
    lane = Lane("default", "/v1/chat/completions", "model-0")

    def once(number: int) -> None:
        names = [f"f{number:07x}-0000-4000-8000-{n:012x}" for n in range(_APPEND)]
        buffer.append([Request(f"{n}.0.0", n, "t", lane, b"{}", b"", 1) for n in names])

    return once


def _seal(redis: Redis, settings: Settings) -> Callable[[int], object]:
    buffer = Buffer(redis, settings, SystemClock())
    lane = Lane("default", "/v1/chat/completions", "sealed")

    def once(number: int) -> None:
        name = f"e{number:07x}"
        buffer.append([Request(f"{name}.0.0", name, "t", lane, b"{}", b"", 1)])
        redis.config_resetstat()
        buffer.seal(lane.key, only_if_due=False)

    return once


def _tick(redis: Redis, settings: Settings) -> Callable[[int], object]:
    timers = Timers(redis, settings)
    return lambda _: timers.claim(100, 60.0)


def _timed(redis: Redis, once: Callable[[int], object], part: int) -> float:
    """Microseconds of the server's time for one call: the least of twenty, others being busy."""
    took = []
    for number in range(20):
        redis.config_resetstat()
        once(part * 20 + number)
        stats: dict[str, Any] = redis.info("commandstats")
        took.append(float(stats["cmdstat_evalsha"]["usec"]))
    return min(took)
