"""What a call that `delay_many` sends has in common with one that has a message of its own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from numbers import Real
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.canvas import maybe_signature
from celery.result import AsyncResult, GroupResult
from celery.utils.time import maybe_make_aware

if TYPE_CHECKING:
    from lowtide.task import BatchTask

_LIMITS = ("time_limit", "soft_time_limit")


def options_of(
    app: Celery, name: str, task: BatchTask | None, given: dict[str, Any]
) -> dict[str, Any]:
    """The options that the calls are sent with: those given, completed with the task's own.

    Raises:
        TypeError: A time limit is given, which calls that run together cannot have.
    """
    for limit in _LIMITS:
        if given.get(limit) is not None:
            raise TypeError(
                f"delay_many() of {name} has no {limit}=: its calls run together, and a limit ends "
                "one alone; send them with apply_async()."
            )
    known: Any = task if task is not None else app._tasks.get(name)  # noqa: SLF001 - as send_task
    own = {} if known is None else known._get_exec_options()  # noqa: SLF001 - as send_task
    return {
        **{key: value for key, value in own.items() if value is not None},
        **given,
        **dict.fromkeys(_LIMITS),
    }


def take_headers(app: Celery, options: dict[str, Any]) -> dict[str, Any]:
    """Takes out of `options` what each call has, not the message that carries many: as headers."""
    stamps = {name: options.pop(name) for name in options.pop("stamped_headers", None) or ()}
    headers = {
        "expires": _expiry(app, options.pop("expires", None)),
        "shadow": options.pop("shadow", None),
        "stamped_headers": list(stamps),
        "stamps": stamps,
    }
    return {name: value for name, value in headers.items() if value}


def has_expired(headers: dict[str, Any]) -> bool:
    """Whether the calls that have `headers` are taken too late."""
    expires = headers.get("expires")
    return expires is not None and datetime.fromisoformat(expires) < datetime.now(UTC)


def checked(
    task: BatchTask | None, args: list[Any], kwargs: dict[str, Any], serializer: str
) -> tuple[Any, dict[str, Any]]:
    """The arguments of a call as they are sent: `pydantic=True` has models made into dicts.

    Raises:
        TypeError: The task's function does not take them.
    """
    if task is None:
        return args, kwargs
    kind: Any = task
    if kind.typing:
        kind.__header__(*args, **kwargs)
    if kind._dump_pydantic_arguments is not None and serializer != "pickle":  # noqa: SLF001 - as Celery's
        args, kwargs = kind._dump_pydantic_arguments(args, kwargs)  # noqa: SLF001
    return args, kwargs


def at_once(
    task: BatchTask,
    group: str,
    calls: list[tuple[Any, dict[str, Any]]],
    task_ids: Sequence[str],
    chord: Any,
    **options: Any,
) -> GroupResult | AsyncResult:
    """The results of calls with `task_always_eager`, each run here and now."""
    results: list[Any] = [
        task.apply_async(args, kwargs, task_id=task_id, **options)
        for task_id, (args, kwargs) in zip(task_ids, calls, strict=True)
    ]
    whole = GroupResult(group, results)
    if chord is None:
        return whole
    body = maybe_signature(chord, app=task.app)
    result: AsyncResult = body.apply_async(([each.get() for each in results],))
    result.parent = whole
    return result


def _expiry(app: Celery, expires: float | datetime | str | None) -> str | None:
    """When calls expire, in ISO 8601 with its offset, of whatever Celery takes for it."""
    if expires is None:
        return None
    if isinstance(expires, Real):
        expires = app.now() + timedelta(seconds=float(expires))
    elif isinstance(expires, str):
        expires = datetime.fromisoformat(expires)
    made: datetime = maybe_make_aware(expires, app.timezone)
    return made.isoformat()
