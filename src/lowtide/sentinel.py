"""Redis behind Sentinel: `redis+sentinel://:password@host1:26379,host2:26379/mymaster/0`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis.sentinel
from redis import Redis
from redis.retry import Retry

from lowtide.errors import SettingsError

SCHEME = "redis+sentinel://"
_PORT = 26379


@dataclass(frozen=True, slots=True)
class Place:
    """Where the sentinels are, and whom they are asked for.

    Attributes:
        sentinels: (host, port) of each.
        master: The name that they know the master by.
        database: Database number.
        username: Of the Redis servers, None for the default user.
        password: Of the Redis servers.
        sentinel_password: Of the sentinels, in the query; None if they ask for none.
    """

    sentinels: tuple[tuple[str, int], ...]
    master: str
    database: int
    username: str | None
    password: str | None
    sentinel_password: str | None

    def celery(self) -> tuple[str, dict[str, Any]]:
        """Celery's URL for it, and the options for its transport or result backend."""
        secret = f":{self.password}@" if self.password else ""
        urls = [
            f"sentinel://{secret}{host}:{port}/{self.database}" for host, port in self.sentinels
        ]
        options: dict[str, Any] = {"master_name": self.master}
        if self.sentinel_password:
            options["sentinel_kwargs"] = {"password": self.sentinel_password}
        return ";".join(urls), options


def parse(url: str) -> Place:
    """Reads a `redis+sentinel://` URL.

    Raises:
        SettingsError: It names no sentinel or no master.
    """
    parts = urlsplit(url)
    secret, _, hosts = parts.netloc.rpartition("@")
    username, _, password = secret.partition(":")
    master, _, database = parts.path.strip("/").partition("/")
    query = dict(parse_qsl(parts.query))
    try:
        sentinels = tuple(_address(host) for host in hosts.split(","))
        number = int(database or 0)
    except ValueError:
        master = ""
        sentinels, number = (), 0
    if not master or not sentinels:
        raise SettingsError(
            "LOWTIDE_REDIS_URL is not the URL of a master behind Sentinel; write "
            "redis+sentinel://:password@host1:26379,host2:26379/mymaster/0."
        )
    return Place(
        sentinels=sentinels,
        master=master,
        database=number,
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_password=query.get("sentinel_password"),
    )


def client(url: str, *, timeout: float, retry: Retry) -> Redis:
    """A client of the master, whichever server that is when a connection is opened."""
    place = parse(url)
    of_redis: Any = redis.sentinel  # has no types
    sentinel = of_redis.Sentinel(
        place.sentinels,
        sentinel_kwargs={"password": place.sentinel_password, "socket_timeout": min(timeout, 2.0)},
        socket_timeout=timeout,
        socket_connect_timeout=min(timeout, 5.0),
        retry=retry,
    )
    made: Redis = sentinel.master_for(
        place.master, db=place.database, username=place.username, password=place.password
    )
    return made


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if ":" in text else (text, "", str(_PORT))
    if not host:
        raise ValueError(text)
    return host, int(port)
