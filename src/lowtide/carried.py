"""What a call carries in its message's headers, so that it holds on any replica and in a retry.

Light to import, for apps that only send tasks.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lowtide.durations import parse_duration

if TYPE_CHECKING:
    from celery.app.task import Context

    from lowtide.task import BatchTask

DEADLINE_HEADER = "lowtide_deadline"
RESULTS = "results:"
"""What the name of a result backend starts with where it stands beside those of destinations."""
OWN = "~"
"""What the names of destinations start with that are the ledger's own, not somebody to tell. It
comes after all others: so what waits for somebody is found without reading what is kept.
"""
UNSTORABLE = "holds a NUL character or half an emoji, which no database keeps; leave it out."
"""What is wrong with a text that `is_storable` refuses."""
_OPTIONS = ("tenant", "coalesce", "cache", "max_wait")
_RECIPIENTS = ("deliver_to", "result_backend")


@dataclass(frozen=True, slots=True)
class Carried:
    """How a call is to be answered: as it says itself, or else its task.

    Attributes:
        deadline: When the answer is needed, epoch seconds; None for whenever.
        tenant: Who pays.
        coalesce: Whether it shares one line with other calls of the same.
        cache: Seconds that its answer is kept for later calls of the same; None for not at all.
        max_wait: Seconds that it may wait in its buffer; None for as long as its lane allows.
    """

    deadline: float | None
    tenant: str | None
    coalesce: bool
    cache: float | None
    max_wait: float | None


def due_at(deadline: str | float | datetime | None) -> float | None:
    """The deadline in epoch seconds, from a duration counted from now or a point in time."""
    if deadline is None:
        return None
    if isinstance(deadline, datetime):
        return deadline.timestamp()
    return time.time() + parse_duration(deadline)


def take(options: dict[str, Any]) -> dict[str, Any]:
    """Takes lowtide's own out of the options of a call, as headers.

    Raises:
        TypeError: `tenant`, `result_backend` or a name in `deliver_to` is no str.
        ValueError: `cache` or `max_wait` is no duration, or `tenant` cannot be stored.
    """
    headers = {}
    stamped = options.get("stamped_headers") or ()
    for name in (*_OPTIONS, *_RECIPIENTS):
        # A stamp of the user's own may have such a name; that is Celery's to carry.
        value = None if name in stamped else options.pop(name, None)
        if value is not None:
            headers[_header(name)] = _checked(name, value)
    return headers


def check(options: Mapping[str, Any]) -> None:
    """Refuses values that a task's own options cannot have.

    Raises:
        TypeError: `tenant`, `result_backend` or a name in `deliver_to` is no str.
        ValueError: `cache` or `max_wait` is no duration, or `tenant` cannot be stored.
    """
    for name in (*_OPTIONS, *_RECIPIENTS):
        if options.get(name) is not None:
            _checked(name, options[name])


def read(task: BatchTask, headers: Mapping[str, Any] | None) -> Carried:
    """What a call of `task` carries, completed with what the task says."""
    told = headers or {}
    due = told.get(DEADLINE_HEADER)
    values = {name: told.get(_header(name)) for name in _OPTIONS}
    for name, value in values.items():
        if value is None:
            own = getattr(task, name)
            values[name] = None if own is None else _checked(name, own)
    return Carried(
        deadline=due_at(task.deadline) if due is None else float(due),
        tenant=values["tenant"],
        coalesce=bool(values["coalesce"]),
        cache=values["cache"] or None,
        max_wait=values["max_wait"],
    )


def headers_of(context: Context) -> dict[str, Any] | None:
    """The custom headers of a call, lowtide's own always among them.

    Some tracers send a header that is named "headers". Celery then gives a task what is in that
    for all of its headers.
    """
    headers = context.headers
    own = {name: value for name, value in context.__dict__.items() if name.startswith("lowtide_")}
    if headers is None or own.keys() <= headers.keys():
        return headers
    return {**own, "headers": headers}


def names_backend(headers: Mapping[str, Any]) -> str | None:
    """Name of the result backend that a call itself asks for, apart from the app's own."""
    name = headers.get(_header("result_backend"))
    return None if name is None else str(name)


def read_from(result: Any, headers: Mapping[str, Any]) -> Any:
    """`result`, which reads from the result backend that its call asks for."""
    name = names_backend(headers)
    if name is not None and hasattr(result, "read_from"):
        result.read_from(name)
    return result


def recipients(task: Any, headers: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Who is told how a call ends, apart from its caller: names as the outbox has them.

    Args:
        task: The Celery task; one that is no batch task tells nobody.
        headers: Of the call.
    """
    told = headers or {}
    to = told.get(_header("deliver_to"), getattr(task, "deliver_to", None))
    backend = told.get(_header("result_backend")) or getattr(task, "result_backend", None)
    names = tuple(_names(to)) if to else ()
    return (*names, RESULTS + str(backend)) if backend else names


def is_storable(text: str) -> bool:
    """Whether every database can keep a text."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _names(value: str | Collection[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(dict.fromkeys(value))


def _header(name: str) -> str:
    return f"lowtide_{name}"


def _checked(name: str, value: Any) -> Any:
    if name == "coalesce":
        return bool(value)
    if name == "deliver_to":
        if not all(isinstance(each, str) for each in _names(value)):
            raise TypeError(f"deliver_to={value!r} names no destinations; write deliver_to='crm'.")
        return _names(value)
    if name == "result_backend":
        if not isinstance(value, str):
            raise TypeError(f"result_backend={value!r} is no name of a result backend.")
        return value
    if name != "tenant":
        return parse_duration(value or 0)
    if not isinstance(value, str):
        raise TypeError(f"tenant={value!r} is no str; name who pays, as in tenant='acme'.")
    if not is_storable(value):
        raise ValueError(f"tenant={value!r} {UNSTORABLE}")
    return value
