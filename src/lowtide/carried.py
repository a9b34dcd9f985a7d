"""What a call carries in its message's headers, so that it holds on any replica and in a retry.

Light to import, for apps that only send tasks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lowtide.durations import parse_duration

if TYPE_CHECKING:
    from lowtide.task import BatchTask

DEADLINE_HEADER = "lowtide_deadline"
_OPTIONS = ("tenant", "coalesce", "cache", "max_wait")


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
        TypeError: `tenant` is no str.
        ValueError: `cache` or `max_wait` is no duration.
    """
    headers = {}
    for name in _OPTIONS:
        value = options.pop(name, None)
        if value is not None:
            headers[_header(name)] = _checked(name, value)
    return headers


def check(options: Mapping[str, Any]) -> None:
    """Refuses values that a task's own options cannot have.

    Raises:
        TypeError: `tenant` is no str.
        ValueError: `cache` or `max_wait` is no duration.
    """
    for name in _OPTIONS:
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


def _header(name: str) -> str:
    return f"lowtide_{name}"


def _checked(name: str, value: Any) -> Any:
    if name == "coalesce":
        return bool(value)
    if name != "tenant":
        return parse_duration(value or 0)
    if not isinstance(value, str):
        raise TypeError(f"tenant={value!r} is no str; name who pays, as in tenant='acme'.")
    return value
