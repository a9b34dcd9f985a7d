"""The results of many calls, which take little to make and little to wait for."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from time import monotonic, sleep
from typing import Any

from celery import Celery, states
from celery.exceptions import TimeoutError as NotYet
from celery.result import AsyncResult, GroupResult, assert_will_not_block
from vine.synchronization import barrier

_AT_ONCE = 1000
# Looking at all results takes no more than this share of the time.
_LOOKING = 0.02
# Whoever waits for one result looks only so often (seconds) whether its time is over.
_CELERYS_WAIT = 1.0


class ManyResults(GroupResult):
    """A `GroupResult` that is cheap to make and to wait for.

    Its members are made when they are asked for. Celery's subscribes to each one's channel, which
    for thousands of calls takes longer than to send them. This one reads many results at once and
    waits for the last that is not there yet; by then more have come.
    """

    _results: list[Any] | None = None
    _failed: Any = None
    _look_again = 0.0
    _chord: weakref.ref[AsyncResult] | None = None

    def __init__(self, id: str | None = None, results: Any = None, **options: Any) -> None:  # noqa: A002 - Celery's name
        self._listens = False
        self._ids: Sequence[str] = ()
        self._make: Callable[[str], AsyncResult] | None = None
        self._known: dict[str, Any] = {}
        self._sample: Any = None
        super().__init__(id, results, ready_barrier=barrier(), **options)

    @classmethod
    def of(
        cls, group: str, ids: Sequence[str], make: Callable[[str], AsyncResult], app: Celery
    ) -> ManyResults:
        """The results of the tasks `ids`, each made by `make`."""
        made = cls(group, app=app)
        made._ids, made._make = ids, make
        return made

    def belong_to(self, chord: AsyncResult) -> None:
        """Notes that the members are the header of a chord with that result."""
        self._chord = weakref.ref(chord)
        chord.parent = self

    @property
    def results(self) -> Any:
        """The members, in the order of the calls."""
        if self._results is None and self._make is not None:
            self._results = [self._make(task_id) for task_id in self._ids]
            self._note(self._known)
            self._known, self._sample = {}, None
        return self._results

    @results.setter
    def results(self, members: Any) -> None:
        self._results = members

    @property
    def backend(self) -> Any:
        """Where the members' results are: calls may name another place than the app's."""
        one = self._one()
        return super().backend if one is None else one.backend

    @property
    def supports_native_join(self) -> Any:
        """Whether the members' backend reads many results at once."""
        one = self._one()
        return None if one is None else one.supports_native_join

    def __len__(self) -> int:
        return len(self._ids if self._results is None else self._results)

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
        """Calls `callback` when all have ended."""
        self._listen()
        return super().then(callback, on_error, weak=weak)

    def maybe_throw(self, callback: Any = None, propagate: bool = True) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Raises what one of the members failed with.

        Who waits for a chord has this called with each message that comes, where Celery's reads
        every member's result each time. This one looks no oftener than takes a small share of the
        time, and once more when the chord has ended: a failure may be told a little later.
        """
        if callback is not None or not hasattr(self.backend, "mget"):
            super().maybe_throw(callback=callback, propagate=propagate)
            return
        chord = None if self._chord is None else self._chord()
        if monotonic() >= self._look_again or (chord is not None and chord._cache is not None):  # noqa: SLF001
            self._look()
        if self._failed is not None:
            self._failed.maybe_throw(propagate=propagate)

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        on_message: Callable[[Any], None] | None = None,
        on_interval: Callable[[], None] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """(task id, outcome) of each soon after it came.

        Raises:
            celery.exceptions.TimeoutError: Some have not come within `timeout` seconds.
        """
        if self._listens or not hasattr(self.backend, "mget"):
            self._listen()
            yield from super().iter_native(timeout, interval, no_ack, on_message, on_interval)
            return
        end = None if timeout is None else monotonic() + timeout
        pending = dict.fromkeys(self._all_ids())
        while pending:
            began = monotonic()
            found = dict(self._ready(list(pending), on_message))
            wait = max(interval or 0.0, (monotonic() - began) / _LOOKING)
            self._note(found)
            for task_id, outcome in found.items():
                del pending[task_id]
                yield task_id, outcome
            if on_interval is not None:
                on_interval()
            if pending:
                self._wait_for(next(reversed(pending)), wait, end)

    def join_native(
        self,
        timeout: float | None = None,
        propagate: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        interval: float = 0.5,
        callback: Callable[[str, Any], object] | None = None,
        no_ack: bool = True,  # noqa: FBT001, FBT002
        on_message: Callable[[Any], None] | None = None,
        on_interval: Callable[[], None] | None = None,
        disable_sync_subtasks: bool = True,  # noqa: FBT001, FBT002
    ) -> list[Any] | None:
        """The results in the order of the calls; `.get()` is this. No member is made for it.

        Raises:
            Exception: What one of the members failed with.
            celery.exceptions.TimeoutError: Some have not come within `timeout` seconds.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        values: dict[str, Any] = dict.fromkeys(self._all_ids())
        for task_id, meta in self.iter_native(timeout, interval, no_ack, on_message, on_interval):
            if propagate and meta["status"] in states.PROPAGATE_STATES:
                raise meta["result"]
            if callback is not None:
                callback(task_id, meta["result"])
            else:
                values[task_id] = meta["result"]
        return None if callback is not None else list(values.values())

    def _all_ids(self) -> Sequence[str]:
        return self._ids if self._results is None else [result.id for result in self._results]

    def _one(self) -> Any:
        """One of the members, None when there is none: they are all read in the same way."""
        if self._results is not None:
            return self._results[0] if self._results else None
        if self._sample is None and self._make is not None and self._ids:
            self._sample = self._make(self._ids[0])
        return self._sample

    def _member(self, task_id: str) -> Any:
        """A member, made for the moment where they are not made yet."""
        if self._results is None and self._make is not None:
            return self._make(task_id)
        return next(result for result in reversed(self._results or ()) if result.id == task_id)

    def _wait_for(self, task_id: str, seconds: float, end: float | None) -> None:
        left = seconds if end is None else min(seconds, end - monotonic())
        if left <= 0:
            raise NotYet("The operation timed out.")
        if end is not None and end - monotonic() < _CELERYS_WAIT:
            sleep(left)
            return
        member = self._member(task_id)
        try:
            member.get(timeout=left, propagate=False, disable_sync_subtasks=False)
        except NotYet:
            return
        finally:
            if self._results is None:
                # Otherwise it does so when it goes, which may be when the app ends.
                member.backend.remove_pending_result(member)
                member.backend = None

    def _note(self, outcomes: dict[str, Any]) -> None:
        """Tells the members their outcomes, now or when they are made."""
        if self._results is None:
            self._known.update(outcomes)
            return
        for result in self._results:
            if result.id in outcomes:
                result._maybe_set_cache(outcomes[result.id])  # noqa: SLF001 - as Celery's own do

    def _look(self) -> None:
        """Reads the results of members that are not known yet; finds one that failed."""
        began = monotonic()
        unknown = [result.id for result in self.results if result._cache is None]  # noqa: SLF001
        self._note(dict(self._ready(unknown, None)))
        known = (result for result in self.results if result._cache is not None)  # noqa: SLF001
        failed = (each for each in known if each._cache["status"] in states.PROPAGATE_STATES)  # noqa: SLF001
        self._failed = next(failed, None)
        self._look_again = monotonic() + (monotonic() - began) / _LOOKING

    def _ready(self, ids: list[str], on_message: Any) -> Iterator[tuple[str, Any]]:
        some = iter(ids)
        while chunk := list(islice(some, _AT_ONCE)):
            yield from self.backend.get_many(
                chunk, interval=0, max_iterations=1, on_message=on_message
            )

    def _listen(self) -> None:
        if self._listens:
            return
        self._listens = True
        for result in self.results:
            self._on_full.add(result)
        self._on_full.finalize()
