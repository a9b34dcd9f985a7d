"""Many appenders and sealers at once, on real time: each request ends in exactly one batch."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from lowtide.buffer import Buffer
from tests.redis_side.support import LANE, OTHER, ask, contents

THREADS = 6
PER_THREAD = 1500
MakeBuffer = Callable[..., Buffer]


def test_nothing_is_lost_or_doubled(redis: Redis, real_buffer: MakeBuffer) -> None:
    """Each request is appended by two threads, while others seal, remove and lose scripts."""
    buffer = real_buffer(max_requests=40, max_bytes=9000)
    told: list[str] = []
    removed: list[str] = []
    done = threading.Event()

    def append(seed: int) -> int:
        rng = random.Random(seed)
        added, at = 0, 0
        while at < PER_THREAD:
            size = rng.randint(1, 25)
            lane = LANE if seed % 4 < 2 else OTHER
            part = [
                ask(f"{seed // 2}x{n}", lane=lane, size=150 + n % 100)
                for n in range(at, min(at + size, PER_THREAD))
            ]
            said = buffer.append(part)
            told.extend(said.sealed)
            added, at = added + said.added, at + size
        return added

    def seal(lane_key: str) -> None:
        while not done.is_set():
            batch_id = buffer.seal(lane_key, only_if_due=False)
            if batch_id is not None:
                told.append(batch_id)

    def disturb() -> None:
        rng = random.Random(1)
        while not done.is_set():
            redis.script_flush()
            names = [f"0x{rng.randrange(PER_THREAD)}.0.0" for _ in range(5)]
            removed.extend(buffer.remove(LANE.key, names))
            buffer.rebuild(scan=True)

    with ThreadPoolExecutor(THREADS + 3) as pool:
        others = [pool.submit(seal, LANE.key), pool.submit(seal, OTHER.key), pool.submit(disturb)]
        try:
            added = sum(pool.map(append, range(THREADS), timeout=120))
        finally:
            done.set()
        for other in others:
            other.result(30)
    told += filter(None, (buffer.seal(lane.key, only_if_due=False) for lane in (LANE, OTHER)))

    expected = {f"{task}x{n}.0.0" for task in range(THREADS // 2) for n in range(PER_THREAD)}
    batches = buffer.sealed()
    found = [name for b in batches for page in buffer.lines(b.batch_id) for name, _ in page]
    assert Counter(found + removed) == Counter(expected)
    assert added == len(expected)
    assert Counter(told) == Counter(batch.batch_id for batch in batches)
    for batch in batches:
        assert batch.requests == sum(len(page) for page in buffer.lines(batch.batch_id))
        assert batch.requests <= 40
        assert batch.size <= 9000
    assert contents(redis)["timers"].keys() == {f"submit:{name}" for name in told}


@pytest.mark.parametrize("sealers", [8])
def test_one_of_many_sealers_wins(real_buffer: MakeBuffer, sealers: int) -> None:
    buffer = real_buffer()
    for number in range(50):
        buffer.append([ask(f"t{number}")])
        start = threading.Barrier(sealers)

        def seal(_: int, start: threading.Barrier = start) -> str | None:
            start.wait()
            return buffer.seal(LANE.key, only_if_due=False)

        with ThreadPoolExecutor(sealers) as pool:
            assert sum(batch_id is not None for batch_id in pool.map(seal, range(sealers))) == 1


def test_an_answer_lost_after_a_seal_is_still_told_by_the_timer(
    redis: Redis, real_buffer: MakeBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redis.connection import AbstractConnection, Connection
    from redis.exceptions import ConnectionError as RedisConnectionError

    from lowtide.timers import Timers
    from tests.redis_side.conftest import settings

    buffer = real_buffer(max_requests=2)
    redis.ping()
    read = Connection.read_response
    lost: list[object] = []

    def lose_once(self: AbstractConnection, *args: object, **options: object) -> object:
        reply = read(self, *args, **options)
        if not lost and isinstance(reply, list):
            lost.append(reply)
            self.disconnect()
            raise RedisConnectionError("the answer was lost")
        return reply

    buffer.append([ask("zz", lane=OTHER)])  # so that the server knows the script
    monkeypatch.setattr(Connection, "read_response", lose_once)

    said = buffer.append([ask("aa"), ask("bb")])

    assert lost
    assert (said.added, said.refused, said.sealed) == (0, 2, ())
    (batch,) = buffer.sealed()
    assert batch.requests == 2
    due = Timers(redis, settings()).claim(10, 60)
    assert [(entry.verb, entry.id) for entry in due] == [("submit", batch.batch_id)]
