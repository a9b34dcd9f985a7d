"""The ledger's database, and whether all clocks agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from redis import RedisError
from sqlalchemy import func, select
from sqlalchemy.engine import make_url

from lowtide.connect import connect
from lowtide.doctor.finding import Finding, bad, good, risky
from lowtide.errors import LowtideError
from lowtide.ledger import Ledger
from lowtide.ledger.engine import Database
from lowtide.runtime import Runtime

_SKEW = 2.0


def database(runtime: Runtime) -> list[Finding]:
    """Reachable, and of this release's form."""
    part, url = "Database", runtime.settings.ledger_url
    if is_new(runtime):
        return [good(part, f"{make_url(url).database} is made by the first worker")]
    ledger = Ledger(url, runtime.clock)
    try:
        problems = ledger.check()
    finally:
        ledger.close()
    advice = "Look at LOWTIDE_DATABASE_URL."
    return [bad(part, problem, advice) for problem in problems] or [good(part, ledger.name)]


def is_new(runtime: Runtime) -> bool:
    """Whether the ledger is a file that nobody has made yet."""
    url = runtime.settings.ledger_url
    file = make_url(url).database
    return url.startswith("sqlite") and bool(file) and not Path(str(file)).exists()


def clocks(runtime: Runtime) -> list[Finding]:
    """Whether this machine, Redis and the database server agree on the time."""
    part = "Clocks"
    try:
        skews = {"Redis": _skew(runtime, _redis_time)}
        if not runtime.settings.ledger_url.startswith("sqlite"):
            skews["the database"] = _skew(runtime, _database_time)
    except (RedisError, LowtideError):
        return [risky(part, "not compared: a store does not answer", "See above.")]
    off = [f"{name} is {skew:+.1f} s off" for name, skew in skews.items() if abs(skew) > _SKEW]
    if off:
        advice = "Set them by NTP: timers, leases and deadlines compare their times."
        return [bad(part, f"{' and '.join(off)} this machine", advice)]
    return [good(part, f"{' and '.join(skews)} and this machine agree within {_SKEW:.0f} s")]


def _skew(runtime: Runtime, read: Callable[[Runtime], float]) -> float:
    """Seconds that a server is ahead of this machine."""
    before = runtime.clock.now()
    there = read(runtime)
    return there - (before + runtime.clock.now()) / 2


def _redis_time(runtime: Runtime) -> float:
    seconds, micros = connect(runtime.redis_url, short=True).time()
    return float(seconds) + float(micros) / 1e6


def _database_time(runtime: Runtime) -> float:
    server = Database(runtime.settings.ledger_url)
    try:
        with server.read() as connection:
            epoch = func.extract("epoch", func.clock_timestamp())
            return float(connection.execute(select(epoch)).scalar_one())
    finally:
        server.close()
