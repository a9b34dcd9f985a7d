"""All checks, one after the other; none of them keeps another from being made."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from redis import RedisError

from lowtide.doctor import (
    celery_checks,
    outbox_checks,
    provider_checks,
    redis_checks,
    spend_checks,
    store_checks,
)
from lowtide.doctor.finding import Finding, bad, first_line
from lowtide.errors import LowtideError, SettingsError
from lowtide.runtime import Runtime

Check = Callable[[Runtime], list[Finding]]

CHECKS: dict[str, Check] = {
    "Broker": celery_checks.broker,
    "Redis": redis_checks.redis,
    "Database": store_checks.database,
    "Result backend": celery_checks.results,
    "Provider": provider_checks.providers,
    "Spend caps": spend_checks.caps,
    "Destinations": outbox_checks.destinations,
    "Workers": celery_checks.workers,
    "Clocks": store_checks.clocks,
}
"""Each check by the part that it looks at."""


def examine(runtime: Runtime) -> Iterator[Finding]:
    """Looks at every part.

    Yields:
        What was found, as soon as it is known.
    """
    try:
        _ = runtime.settings
    except SettingsError as error:
        yield bad("Settings", error.message, "Set it right and run `lowtide doctor` again.")
        return
    for part, check in CHECKS.items():
        try:
            yield from check(runtime)
        except RedisError as error:
            yield bad(part, f"Redis: {first_line(error)}", "See Redis, above.")
        except LowtideError as error:
            yield bad(part, error.message, "Set it right and run `lowtide doctor` again.")
        except Exception as error:
            yield bad(part, f"{type(error).__name__}: {first_line(error)}", "This is unexpected.")
