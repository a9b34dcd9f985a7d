"""The Lua scripts: one round trip for any number of calls, also when the server forgot them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

_BUFFER = ("clock", "buffer", "count", "load")
# What a script needs before its own text.
_PARTS = {
    "append": _BUFFER,
    "seal": _BUFFER,
    "remove": _BUFFER,
    "heal": _BUFFER,
    "restore": ("clock", "count"),
    "claim": ("clock",),
}

Argument = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Script:
    """A script with what it is built on.

    Attributes:
        name: Its file in `lua/`, without the suffix.
        source: What the server runs.
        sha: How the server knows it once it has run it.
    """

    name: str
    source: str
    sha: str


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a script: its name, KEYS and ARGV."""

    name: str
    keys: Sequence[str]
    args: Sequence[Argument]


@cache
def script(name: str) -> Script:
    """The script `name`, read from the package."""
    folder = resources.files("lowtide") / "lua"
    parts = [(folder / f"{part}.lua").read_text("utf-8") for part in (*_PARTS.get(name, ()), name)]
    source = "\n".join(parts)
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, source, sha)


def run(redis: Redis, calls: Sequence[Call]) -> list[Any]:
    """Runs scripts in one round trip; two when the server does not know one of them yet.

    Args:
        redis: Where.
        calls: Run in this order, each on its own: others may run in between.

    Returns:
        The reply of each call.

    Raises:
        redis.RedisError: The first failure of any call; the others have run all the same.
    """
    replies = _send(redis, calls, known=True)
    again = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if again:
        for i, reply in zip(
            again, _send(redis, [calls[i] for i in again], known=False), strict=True
        ):
            replies[i] = reply
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _send(redis: Redis, calls: Sequence[Call], *, known: bool) -> list[Any]:
    """Sends all calls at once. A script that the server may not know goes along in full, once."""
    pipe: Any = redis.pipeline(transaction=False)
    sent: set[str] = set()
    for call in calls:
        code = script(call.name)
        head = ("EVALSHA", code.sha) if known or call.name in sent else ("EVAL", code.source)
        sent.add(call.name)
        pipe.execute_command(*head, len(call.keys), *call.keys, *call.args)
    return pipe.execute(raise_on_error=False)
