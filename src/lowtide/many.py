"""The results of many calls, which begin to listen when somebody waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery.result import GroupResult
from vine.synchronization import barrier


class ManyResults(GroupResult):
    """A `GroupResult` that is cheap to make.

    Celery's subscribes to each result's channel as soon as it is made, which for thousands of
    calls takes longer than to send them. This one does so when it is waited for.
    """

    def __init__(self, id: str | None = None, results: Any = None, **options: Any) -> None:  # noqa: A002 - Celery's name
        self._listens = False
        super().__init__(id, results, ready_barrier=barrier(), **options)

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
        """Calls `callback` when all have ended."""
        self._listen()
        return super().then(callback, on_error, weak=weak)

    def iter_native(self, *args: Any, **options: Any) -> Iterator[Any]:
        """(task id, outcome) of each as it comes; `.get()` is made of this."""
        self._listen()
        found: Iterator[Any] = super().iter_native(*args, **options)
        return found

    def _listen(self) -> None:
        if self._listens:
            return
        self._listens = True
        for result in self.results:
            self._on_full.add(result)
        self._on_full.finalize()
