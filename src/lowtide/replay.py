"""Replay: the results of a batch are delivered again, as they were.

What the result backend has lost is stored again, and destinations are told again, under the same
ids. Nothing else is repeated: no link, chain or chord runs a second time, no request is sent, no
money is booked. So it is safe to repeat.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery.app.task import Context
from celery.backends.base import DisabledBackend
from celery.backends.rpc import RPCBackend
from celery.utils.log import get_logger

from lowtide import endings, finality, messages, rebuild, telling
from lowtide.carried import recipients
from lowtide.celery_seam import context_of
from lowtide.destinations import KEPT, is_known
from lowtide.endings import Ended, Ending
from lowtide.envelope import unpack as unpack_envelope
from lowtide.errors import EnvelopeError, LowtideError
from lowtide.ids import place
from lowtide.ledger import OUTCOMES, BatchRow, NewMessage, RequestRow, RequestState
from lowtide.request import Request, unpack

if TYPE_CHECKING:
    from lowtide.runtime import Runtime

logger = get_logger(__name__)
_PAGE = 500


@dataclass(slots=True)
class Replayed:
    """What a replay did. Counts are of tasks, unless it says otherwise.

    Attributes:
        batch: Id of the batch.
        there: Their result is in the result backend, and was left as it is.
        stored: Their result was lost, and is stored again.
        unkept: Their result is not in the app's result backend, because they are set so.
        told: Name of a destination in the outbox → how many it is told of again.
        went_on: Requests that did not end their task: a generator asked again, a retry followed,
            another task took its place. The request that came last ends it.
        waiting: Requests without an outcome: they are not delivered for the first time yet.
        unknown: Name of a task that this app does not have → how many.
        lost: Their result is lost, and so is the answer.
        reason: Why answers cannot be had, if they cannot.
    """

    batch: str
    there: int = 0
    stored: int = 0
    unkept: int = 0
    told: Counter[str] = field(default_factory=Counter)
    went_on: int = 0
    waiting: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    reason: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every task that has ended has its result again."""
        return not self.lost and not self.unknown


def replay(rt: Runtime, batch_id: str) -> Replayed:
    """Delivers what came of a batch again.

    Args:
        rt: The runtime of the app that has the batch's tasks.
        batch_id: Our id.

    Raises:
        LowtideError: There is no such batch, nothing of it has ended yet, or the result backend
            cannot be used.
    """
    batch = rt.ledger.batch(batch_id)
    if batch is None:
        raise LowtideError(f"The ledger has no batch {batch_id}.", {"batch": batch_id})
    work = _Replay(rt, batch)
    work.found.waiting = rt.ledger.undelivered(batch_id)
    pages = 0
    for page in _pages(rt, batch_id):
        pages += 1
        work.from_stores(page)
    if not pages:
        raise LowtideError(
            f"Batch {batch_id} is {batch.state}: nothing of it has ended, so there is nothing to "
            "deliver again.",
            {"batch": batch_id, "state": str(batch.state)},
        )
    work.from_files()
    return work.found


@dataclass(frozen=True, slots=True)
class _Opened:
    """A request that ended its task, with what is needed to deliver it again."""

    row: RequestRow
    request: Request
    task: Any
    context: Context

    @property
    def has_recipients(self) -> bool:
        """Whether somebody else is told how it ended."""
        return bool(recipients(self.task, self.context.headers))

    @property
    def is_kept(self) -> bool:
        """Whether the task's result backend is to hold its result."""
        if isinstance(self.task.backend, DisabledBackend | RPCBackend):
            return False
        ignored = self.context.__dict__.get("ignore_result")
        if not (self.task.ignore_result if ignored is None else ignored):
            return True
        failed = self.row.state != RequestState.DELIVERED
        return failed and bool(self.task.store_errors_even_if_ignored)


class _Replay:
    """One replay: what is known is given at once, the rest is looked for in the files."""

    def __init__(self, rt: Runtime, batch: BatchRow) -> None:
        self.rt = rt
        self.batch = batch
        self.found = Replayed(batch.id)
        self._entries: list[NewMessage] = []
        # Line in the provider's files → those who wait for its answer.
        self._missing: defaultdict[str, set[str]] = defaultdict(set)

    def from_stores(self, rows: Sequence[RequestRow]) -> None:
        """Delivers what the result backend or the ledger holds, and notes what they do not."""
        opened = self._open(rows)
        try:
            stored = finality.stored((each.task, each.row.task_id) for each in opened)
        except Exception as error:
            raise _unusable(error) from error
        kept = self.rt.ledger.blobs_for(KEPT, [each.row.custom_id for each in opened])
        for each in opened:
            meta, blob = stored.get(each.row.task_id), kept.get(each.row.custom_id)
            if meta is not None:
                self.found.there += 1
                self._tell(each, endings.of_meta(self.rt.app, meta))
            elif blob is not None:
                self._give(each, messages.unpack(self.rt.app, blob).ending)
            elif each.row.state == RequestState.REVOKED:
                self._give(each, endings.revoked(self.rt.app))
            elif each.is_kept or each.has_recipients:
                self._missing[each.row.shares or each.row.custom_id].add(each.row.custom_id)
            else:
                self.found.unkept += 1
        self._post()

    def from_files(self) -> None:
        """Delivers what only the provider's files hold."""
        if not self._missing:
            return
        try:
            for outcomes in rebuild.outcomes(self.rt, self.batch, set(self._missing), _PAGE):
                self._rebuild(outcomes)
        except LowtideError as error:
            self.found.reason = error.message
        for some in _chunks(sorted(set().union(*self._missing.values()))):
            self._from_rows(self._open(self.rt.ledger.rows(some)))

    def _rebuild(self, outcomes: dict[str, rebuild.Found]) -> None:
        by_id = {
            custom_id: found
            for line, found in outcomes.items()
            for custom_id in self._missing.pop(line)
        }
        for each in self._open(self.rt.ledger.rows(by_id)):
            ending = rebuild.ending(
                each.task, each.context, each.request, by_id[each.row.custom_id]
            )
            if ending is None:
                self.found.went_on += 1
            else:
                self._give(each, ending)
        self._post()

    def _from_rows(self, opened: Sequence[_Opened]) -> None:
        """What no file tells, the ledger may: errors, though not of which kind they were."""
        for each in opened:
            error = rebuild.noted_error(each.row, self.batch)
            if error is None:
                self.found.lost += 1
            else:
                about = error.about(task=each.row.task, task_id=each.row.task_id)
                self._give(each, endings.failed(self.rt.app, about))
        self._post()

    def _give(self, opened: _Opened, ending: Ending) -> None:
        self._tell(opened, ending)
        if not opened.is_kept:
            self.found.unkept += 1
            return
        try:
            endings.store(opened.task, opened.row.task_id, ending, opened.context)
        except Exception as error:
            raise _unusable(error) from error
        self.found.stored += 1

    def _tell(self, opened: _Opened, ending: Ending) -> None:
        """Notes who is to be told again; a destination that is no longer set is left out."""
        request, row = opened.context.__dict__, opened.row
        self._entries += [
            message
            for message in telling.entries(
                self.rt,
                Ended(ending, opened.task, request, opened.context.headers),
                row.custom_id,
                batch=self.batch,
                tenant=row.tenant,
                ended_at=row.done_at,
            )
            if message.destination != KEPT and is_known(self.rt.settings, message.destination)
        ]

    def _post(self) -> None:
        """Has those told whom `_tell` noted."""
        entries, self._entries = self._entries, []
        telling.post_again(self.rt, entries)
        self.found.told.update(message.destination for message in entries)

    def _open(self, rows: Sequence[RequestRow]) -> list[_Opened]:
        """Those requests that ended their tasks, whose tasks this app has."""
        last = self.rt.ledger.last_of({row.task_id for row in rows})
        where = self.rt.buffer.where([row.task_id for row in rows])
        found = []
        for row, now in zip(rows, where, strict=True):
            newest = max(row.custom_id, last[row.task_id], key=place)
            if now is not None:
                newest = max(newest, now.custom_id, key=place)
            if newest != row.custom_id or row.state == RequestState.CONTINUED:
                self.found.went_on += 1
            elif row.task not in self.rt.app.tasks:
                self.found.unknown[row.task] += 1
            else:
                opened = self._read(row)
                found += [] if opened is None else [opened]
        return found

    def _read(self, row: RequestRow) -> _Opened | None:
        task = self.rt.app.tasks[row.task]
        try:
            request = unpack(row.custom_id, self.batch.to_lane(), row.blob)
            envelope = unpack_envelope(request.envelope)
            loaded = envelope.load(self.rt.app, row.task_id, row.task, "replay")
        except EnvelopeError as error:
            logger.warning("Request %s cannot be replayed: %s", row.custom_id, error)
            self.found.lost += 1
            return None
        # Whatever follows the task has followed it already.
        loaded.update(callbacks=None, errbacks=None, chain=None, chord=None)
        return _Opened(row, request, task, context_of(loaded))


def _pages(rt: Runtime, batch_id: str) -> Iterator[list[RequestRow]]:
    last = ""
    while lines := rt.ledger.requests_in(batch_id, states=tuple(OUTCOMES), after=last, limit=_PAGE):
        last = lines[-1].custom_id
        yield rt.ledger.rows([line.custom_id for line in lines])


def _chunks(ids: Sequence[str]) -> Iterator[Collection[str]]:
    for first in range(0, len(ids), _PAGE):
        yield ids[first : first + _PAGE]


def _unusable(error: Exception) -> LowtideError:
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return LowtideError(
        f"The result backend cannot be used: {reason}. Nothing is lost; replay it again."
    )
