"""How far many calls are, and their results as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery.result import AsyncResult, ResultSet

if TYPE_CHECKING:
    from celery import Celery

_PAGE = 1000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class GroupProgress:
    """How far the calls of a group are.

    Attributes:
        total: All calls.
        succeeded: Those with a result.
        failed: Those with an error, the revoked ones included.
        buffered: Those that wait in a buffer or a sealed batch.
        submitted: Those at the provider, or on their way back.
        expected_end: When the last should come, epoch seconds; None when that is not known.
    """

    total: int
    succeeded: int
    failed: int
    buffered: int
    submitted: int
    expected_end: float | None

    @property
    def done(self) -> int:
        """Calls that have ended."""
        return self.succeeded + self.failed

    @property
    def finished(self) -> bool:
        """Whether all have ended."""
        return self.done == self.total


def progress(
    results: ResultSet | Iterable[AsyncResult], app: Celery | None = None
) -> GroupProgress:
    """How far many calls are, in a few round trips whatever their number.

    Args:
        results: A `GroupResult`, as `delay_many` or a group gives it, or results.
        app: Their app; that of the first result when left out.
    """
    members = _members(results)
    own = app or _app(members)
    succeeded = failed = buffered = submitted = 0
    ends: list[float] = []
    for page in _pages(members):
        ended = {task_id: ok for task_id, ok, _ in _returned(own, page)}
        succeeded += sum(ended.values())
        failed += len(ended) - sum(ended.values())
        waiting = [member.id for member in page if member.id not in ended]
        for place in _places(own, waiting):
            if place is None:
                continue
            at_provider = place.state not in (None, "BUFFERED", "SEALED", "RECORDED", "HELD")
            submitted += at_provider
            buffered += not at_provider
            if place.expected_end is not None:
                ends.append(place.expected_end)
    return GroupProgress(
        len(members), succeeded, failed, buffered, submitted, max(ends, default=None)
    )


async def as_completed(
    results: ResultSet | Iterable[AsyncResult], app: Celery | None = None
) -> AsyncIterator[AsyncResult]:
    """Gives each result once it is there, the first to come first.

    It polls the backend for all at once and blocks no event loop. What it gives is ready:
    `.get()` returns at once, or raises what the task raised. `asyncio.timeout` ends it early.

    Args:
        results: A `GroupResult`, or results.
        app: Their app; that of the first result when left out.
    """
    waiting = {member.id: member for member in _members(results)}
    pause = _FIRST_PAUSE
    while waiting:
        found = await asyncio.to_thread(_ended, app, list(waiting.values()))
        for task_id in found:
            yield waiting.pop(task_id)
        if waiting:
            pause = _FIRST_PAUSE if found else min(pause * 1.5, _LONGEST_PAUSE)
            await asyncio.sleep(pause)


def _ended(app: Celery | None, members: Sequence[AsyncResult]) -> list[str]:
    own = app or _app(members)
    return [task_id for page in _pages(members) for task_id, _, _ in _returned(own, page)]


def _returned(app: Celery, page: Sequence[AsyncResult]) -> Iterator[tuple[str, bool, Any]]:
    from lowtide.returned import returned

    return returned(app, [member.id for member in page])


def _places(app: Celery, task_ids: Sequence[str]) -> Iterable[Any]:
    from lowtide import runtime

    return runtime.of(app).buffer.where(task_ids) if task_ids else ()


def _members(results: ResultSet | Iterable[AsyncResult]) -> list[AsyncResult]:
    return list(results.results if isinstance(results, ResultSet) else results)


def _app(members: Sequence[AsyncResult]) -> Celery:
    from celery import current_app

    return members[0].app if members else current_app._get_current_object()  # noqa: SLF001


def _pages(members: Sequence[AsyncResult]) -> Iterator[Sequence[AsyncResult]]:
    for first in range(0, len(members), _PAGE):
        yield members[first : first + _PAGE]
