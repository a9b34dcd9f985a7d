"""What the tests of the buffers share: requests, and the exact contents of a Redis."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace
from redis import Redis

from lowtide.lane import Lane
from lowtide.request import Request, unpack

START = 1_700_000_000.0
LANE = Lane("default", "/v1/chat/completions", "m")
OTHER = Lane("default", "/v1/chat/completions", "other")
HEAD = f"lane:{LANE.key}"
LINES = f"lane:{LANE.key}:lines"
SEAL = f"seal:{LANE.key}"


def ask(
    name: str,
    *,
    lane: Lane = LANE,
    size: int = 100,
    tokens: int = 1,
    deadline: float | None = None,
    step: int = 0,
) -> Request:
    """A request of task `name` whose line has `size` bytes."""
    bare = Request(f"{name}.0.{step}", name, "tasks.t", lane, b"", b"", tokens, deadline)
    body = b'"' + b"x" * (size - bare.line_size - 2) + b'"'
    return replace(bare, body=body)


def asks(first: int, last: int, **options: Any) -> list[Request]:
    return [ask(f"{number:02}", **options) for number in range(first, last)]


def batch_id(number: int, at: float = START) -> str:
    """The id that the `number`th buffer gets when it is opened at `at` and nonces are zero."""
    return f"b{int(at * 1_000_000):014x}{number:06x}"


def contents(redis: Redis) -> dict[str, Any]:
    """All of the database: name without prefix -> value, of lines only the size and tokens.

    A key with a TTL has "!" behind its name.
    """
    client: Any = redis
    found: dict[str, Any] = {}
    for key in client.scan_iter(count=1000):
        name = key.decode().removeprefix("{lowtide}:")
        shown = name + ("!" if client.ttl(key) > 0 else "")
        found[shown] = _value(client, key, is_lines=name.endswith(":lines"))
    return found


def _value(client: Any, key: bytes, *, is_lines: bool) -> Any:
    match client.type(key):
        case b"hash":
            value = client.hgetall(key)
            if is_lines:
                return {k.decode(): _line(k.decode(), v) for k, v in value.items()}
            return {k.decode(): v.decode() for k, v in value.items()}
        case b"set":
            return {member.decode() for member in client.smembers(key)}
        case b"zset":
            return {m.decode(): score for m, score in client.zrange(key, 0, -1, withscores=True)}
        case _:
            return client.get(key)


def _line(custom_id: str, line: bytes) -> tuple[int, int]:
    request = unpack(custom_id, LANE, line[8:])
    size, tokens = int.from_bytes(line[:4], "big"), int.from_bytes(line[4:8], "big")
    assert (request.line_size, request.tokens) == (size, tokens)
    return size, tokens


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
