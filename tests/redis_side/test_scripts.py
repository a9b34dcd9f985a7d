from __future__ import annotations

from collections.abc import Callable
from importlib import resources

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError

from lowtide import scripts
from lowtide.buffer import Buffer
from lowtide.held import Appended
from lowtide.request import Request
from tests.redis_side.support import LANE, OTHER, ask, asks, contents

Trips = Callable[[], int]


def test_an_append_is_one_round_trip(buffer: Buffer, trips: Trips) -> None:
    buffer.append([ask("aa")])
    before = trips()

    buffer.append([*asks(0, 99), *(ask(f"x{n}", lane=OTHER) for n in range(1100))])

    assert trips() - before == 1


def test_a_server_that_forgot_the_scripts_gets_them_once(
    redis: Redis, buffer: Buffer, trips: Trips
) -> None:
    buffer.append([ask("aa")])
    redis.script_flush()
    redis.config_resetstat()
    before = trips()

    said = buffer.append([ask(f"t{number}") for number in range(1100)])

    assert said == Appended(1100, 0, ())
    assert trips() - before == 2
    calls = redis.info("commandstats")
    assert calls["cmdstat_eval"]["calls"] == 1
    assert "cmdstat_script|load" not in calls


def test_the_scripts_are_known_after_that(redis: Redis, buffer: Buffer, trips: Trips) -> None:
    redis.script_flush()
    buffer.append([ask("aa")])
    before = trips()

    buffer.append([ask("bb")])

    assert trips() - before == 1


@pytest.mark.parametrize("requests", [asks(0, 3), [ask("aa"), ask("bb", lane=OTHER)]])
def test_a_full_redis_takes_nothing_or_all(
    redis: Redis, buffer: Buffer, requests: list[Request]
) -> None:
    redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(OutOfMemoryError):
            buffer.append(requests)
        assert contents(redis) == {}
    finally:
        redis.config_set("maxmemory", "0")
    assert buffer.append(requests).added == len(requests)


def test_a_full_redis_still_lets_a_batch_go(redis: Redis, buffer: Buffer) -> None:
    buffer.append(asks(0, 3))
    redis.config_set("maxmemory", "1")
    try:
        sealed = buffer.seal(LANE.key, only_if_due=False)
        assert sealed is not None
        assert [batch.batch_id for batch in buffer.sealed()] == [sealed]
        buffer.drop(sealed)
    finally:
        redis.config_set("maxmemory", "0")
    assert buffer.sealed() == []


def test_every_script_file_is_short_and_says_what_it_takes() -> None:
    for name in {name for script, parts in scripts._PARTS.items() for name in (script, *parts)}:
        file = resources.files("lowtide") / "lua" / f"{name}.lua"
        lines = file.read_text("utf-8").splitlines()
        assert len(lines) <= 40, name
        assert lines[0].startswith("-- "), name
        if name in scripts._PARTS:
            head = "\n".join(line for line in lines if line.startswith("--"))
            assert all(word in head for word in ("KEYS", "ARGV", "Returns")), file.name


def test_the_scripts_use_no_command_newer_than_redis_6_2() -> None:
    """Their commands and the options that came last: HSET of many fields 4.0, ZADD LT 6.2."""
    known = {"TIME", "HSCAN", "HSET", "EXPIRE", "SADD", "ZADD", "RENAME", "DEL", "ZREM", "HMGET"}
    known |= {"HLEN", "HEXISTS", "HGET", "HDEL", "SISMEMBER", "ZSCORE", "ZRANGEBYSCORE"}
    import re

    for name in scripts._PARTS:
        used = set(re.findall(r"redis\.call\('(\w+)'", scripts.script(name).source))
        assert used <= known
