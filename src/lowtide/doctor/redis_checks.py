"""The Redis of the buffers: there, new enough, and keeping what it is given."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from redis import Redis, RedisError

from lowtide.connect import connect
from lowtide.doctor.finding import Finding, bad, first_line, good, risky
from lowtide.embedded import OLDEST
from lowtide.runtime import Runtime
from lowtide.shown import without_password

_KEEP = "Turn on its append-only file: appendonly yes, appendfsync everysec."


def redis(runtime: Runtime) -> list[Finding]:
    """Reachable, version, persistence and eviction."""
    url = without_password(runtime.redis_url)
    client = connect(runtime.redis_url, short=True)
    try:
        info: Mapping[str, Any] = client.info()
    except RedisError as error:
        return [
            bad(
                "Redis",
                f"{url}: {first_line(error)}",
                "Start Redis or Valkey there, or set LOWTIDE_REDIS_URL; `make up` brings its own.",
            )
        ]
    return [
        _version(url, info),
        _persistence(client, info),
        _eviction(info),
        scripts("Redis scripts", client),
    ]


def _version(url: str, info: Mapping[str, Any]) -> Finding:
    number = str(info.get("redis_version", "0"))
    name, shown = "Redis", number
    if info.get("server_name") == "valkey":
        name, shown = "Valkey", str(info.get("valkey_version", number))
    if tuple(int(part) for part in number.split(".")[:2]) < OLDEST:
        return bad("Redis", f"{name} {shown} at {url}", "lowtide needs Redis 6.2 or Valkey.")
    return good("Redis", f"{name} {shown} at {url}")


def _persistence(client: Redis, info: Mapping[str, Any]) -> Finding:
    part = "Redis persistence"
    if info.get("aof_enabled"):
        if info.get("aof_last_write_status") == "ok":
            return good(part, "append-only file on: a crash loses a second at most")
        return bad(part, "the last write of the append-only file failed", "Look at its disk.")
    points = _config(client, "save")
    if points == "":
        return bad(part, "off: a restart loses every call that is not yet sent", _KEEP)
    status = info.get("rdb_last_bgsave_status")
    if status != "ok":
        return bad(part, f"snapshots alone, and the last one ended with {status!r}", _KEEP)
    if points is None and not info.get("rdb_last_save_time"):
        return bad(part, "none seen: a restart loses every call that is not yet sent", _KEEP)
    return risky(part, "snapshots alone: a crash loses the calls of some minutes", _KEEP)


def _eviction(info: Mapping[str, Any]) -> Finding:
    part = "Redis memory"
    policy = str(info.get("maxmemory_policy", "unknown"))
    used = str(info.get("used_memory_human", "?"))
    if policy in ("noeviction", "unknown") or not info.get("maxmemory"):
        return good(part, f"{used} in use, nothing is evicted")
    return bad(
        part,
        f"maxmemory-policy is {policy}: when memory is full, calls are dropped unseen",
        "Set maxmemory-policy noeviction.",
    )


def scripts(part: str, client: Redis) -> Finding:
    """That the commands which lowtide lives on are allowed to this user."""
    try:
        client.eval("return 1", 0)
    except RedisError as error:
        return bad(part, first_line(error), "Allow EVAL and EVALSHA to this user.")
    return good(part, "Lua may be run")


def _config(client: Redis, name: str) -> str | None:
    """A setting of the server; None where CONFIG is forbidden, as on many managed ones."""
    with contextlib.suppress(RedisError):
        found: Mapping[Any, Any] = client.config_get(name)
        for value in found.values():
            return value.decode() if isinstance(value, bytes) else str(value)
    return None
