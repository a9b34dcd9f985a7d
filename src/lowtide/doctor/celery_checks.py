"""Broker, result backend and workers, as Celery sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.backends.base import DisabledBackend
from celery.backends.redis import RedisBackend
from kombu.exceptions import OperationalError
from redis import RedisError

from lowtide import pulse
from lowtide.doctor import redis_checks
from lowtide.doctor.finding import Finding, bad, first_line, good, risky
from lowtide.runtime import Runtime
from lowtide.shown import duration, without_password
from lowtide.task import BatchTask

_SECONDS = 3.0
_WINDOW = 48 * 3600.0
"""A batch takes up to 24 hours, and may be sent once more."""


def broker(runtime: Runtime) -> list[Finding]:
    """Whether messages can be sent."""
    with runtime.app.connection_for_write() as connection:
        scheme, _, place = connection.as_uri(include_password=True).partition("://")
        if ":" in scheme:  # a transport given by its class
            scheme = str(connection.transport.driver_type)
        url = without_password(f"{scheme}://{place}")
        try:
            connection.ensure_connection(
                max_retries=1, timeout=_SECONDS, reraise_as_library_errors=True
            )
        except (OperationalError, OSError) as error:
            advice = "Start the broker there, or set LOWTIDE_BROKER_URL (broker_url of your app)."
            return [bad("Broker", f"{url}: {first_line(error)}", advice)]
    return [good("Broker", url)]


def results(runtime: Runtime) -> list[Finding]:
    """Whether results are kept, and long enough."""
    part = "Result backend"
    backend = runtime.app.backend
    if isinstance(backend, DisabledBackend):
        advice = "Set LOWTIDE_RESULT_BACKEND (result_backend of your app)."
        return [risky(part, "none: tasks run, but nobody can read their results", advice)]
    url = without_password(str(backend.as_uri()))
    try:
        backend.get_task_meta("lowtide-doctor", cache=False)
    except Exception as error:
        advice = "Start it, or set LOWTIDE_RESULT_BACKEND (result_backend of your app)."
        return [bad(part, f"{url}: {first_line(error)}", advice)]
    found = [good(part, url), _expiry(runtime)]
    if isinstance(backend, RedisBackend):
        found.append(redis_checks.scripts("Result scripts", backend.client))
    return found


def _expiry(runtime: Runtime) -> Finding:
    part = "Result expiry"
    conf = runtime.app.conf
    result = _seconds(conf.result_expires)
    chord = _seconds(conf.result_chord_expires) or result
    advice = f"Set result_expires of the Celery app to at least {_WINDOW:.0f} seconds."
    if chord and chord < _WINDOW:
        detail = f"chords are kept for {duration(chord)}: one that waits longer hangs for ever"
        return bad(part, detail, f"{advice} Leave result_chord_expires unset.")
    if result and result < _WINDOW:
        detail = f"results are kept for {duration(result)}: who reads later finds nothing"
        return risky(part, detail, advice)
    kept = f"results are kept for {duration(result)}" if result else "results never expire"
    return good(part, kept)


def workers(runtime: Runtime) -> list[Finding]:
    """Whether somebody works, and works on the pipeline."""
    part, settings = "Workers", runtime.settings
    inspect = runtime.app.control.inspect(timeout=1.5)
    try:
        found = inspect.active_queues() or {}
    except (OperationalError, OSError) as error:
        return [bad(part, f"cannot be asked: {first_line(error)}", "See the broker, above.")]
    if not found:
        advice = "Start one: `celery -A your_app worker`, or here `make up`."
        return [bad(part, "none answers", advice)]
    findings = []
    for queue in dict.fromkeys((settings.queue, settings.deliver_queue or settings.queue)):
        on_it = sorted(name for name, queues in found.items() if _consumes(queues, queue))
        if on_it:
            detail = f"{len(found)} answer; on the queue {queue!r}: {', '.join(on_it)}"
            findings.append(good(part, detail))
        else:
            advice = f"Let one consume it: `celery -A your_app worker -Q celery,{queue}`."
            detail = f"{len(found)} answer, none consumes the queue {queue!r}"
            findings.append(bad(part, detail, advice))
    return findings + _strangers(runtime, found, inspect.registered() or {}) + ledgers(runtime)


def ledgers(runtime: Runtime) -> list[Finding]:
    """Workers that have another ledger than this process: they, or this one, look elsewhere."""
    try:
        others = pulse.other_ledgers(runtime)
    except RedisError:
        return []  # its own check tells
    ours = pulse.ledger_of(runtime)
    advice = f"Of workers, {pulse.ONE_LEDGER}"
    return [
        bad("Workers", f"{name} has the ledger {theirs}, and here it is {ours}", advice)
        for name, theirs in others.items()
    ]


def _strangers(
    runtime: Runtime,
    queues: Mapping[str, list[Mapping[str, Any]]],
    registered: Mapping[str, list[str]],
) -> list[Finding]:
    """Workers that take the app's calls and do not know their tasks: another app's, mostly."""
    tasks = {name for name, task in runtime.app.tasks.items() if isinstance(task, BatchTask)}
    queue = runtime.app.conf.task_default_queue
    found = []
    for name, known in sorted(registered.items()):
        lacks = sorted(tasks - {each.split(" ")[0] for each in known})
        if lacks and _consumes(queues.get(name, []), queue):
            more = f" and {len(lacks) - 1} more" if len(lacks) > 1 else ""
            takes = f"{name} takes calls from the queue {queue!r}"
            detail = f"{takes} and does not know {lacks[0]}{more}: such calls fail"
            advice = "Give each app a queue (`task_default_queue`) or a Redis database of its own."
            found.append(bad("Workers", detail, advice))
    return found


def _consumes(queues: list[Mapping[str, Any]], name: str) -> bool:
    return any(queue.get("name") == name for queue in queues)


def _seconds(value: Any) -> float:
    """Celery takes numbers and timedeltas; 0 = never."""
    return float(value.total_seconds() if hasattr(value, "total_seconds") else value or 0)
