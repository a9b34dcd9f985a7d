"""The engine: one thread that brings every batch forward to the clock's present.

``run_once`` does all that is due, in the order of time, whatever the number of hours that the
clock has jumped; the thread only ticks.
"""

from __future__ import annotations

import heapq
import logging
import random
import sqlite3
import threading
from dataclasses import dataclass
from typing import Protocol

from lowtide.simulator.answers import Answerer
from lowtide.simulator.answers.models import snapshot
from lowtide.simulator.clock import VirtualClock
from lowtide.simulator.errors import billing_limit
from lowtide.simulator.execute import Job, LineFaults
from lowtide.simulator.files import FileShelf, load_index, save_index
from lowtide.simulator.lifecycle import Do, Step, decide
from lowtide.simulator.records import DAY, BatchRecord, FileRecord, new_file_id
from lowtide.simulator.settings import SimulatorSettings
from lowtide.simulator.store import Store
from lowtide.simulator.validate import (
    Validation,
    entry,
    file_not_found,
    token_limit,
    validate,
)

_SLICE = 200  # lines between two commits: what a kill makes it do again, and how soon it cancels
_RESULT_LIFE = 30 * DAY
log = logging.getLogger(__name__)


class EndListener(Protocol):
    """Hears of each batch's end."""

    def note(self, db: sqlite3.Connection, batch: BatchRecord, at: float) -> None:
        """Record what follows from the end, within its transaction."""
        ...

    def wake(self) -> None:
        """The transaction is committed."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """All that the engine works with."""

    settings: SimulatorSettings
    clock: VirtualClock
    store: Store
    shelf: FileShelf
    answerer: Answerer
    faults: LineFaults
    hooks: EndListener


class Engine:
    """Drives all live batches.

    Args:
        parts: settings, clock, store and so on; ``hooks`` hears of each batch's end.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._jobs: dict[str, Job] = {}
        self._wake = threading.Condition()
        self._wanted = 0
        self._settled = 0
        self._stopping = False
        self._thread: threading.Thread | None = None

    # ---- the thread
    def start(self) -> None:
        """Start the thread that ticks."""
        self._thread = threading.Thread(target=self._loop, name="lowtide-simulator", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the slice of work that it is at."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread:
            self._thread.join()
        for job in self._jobs.values():
            job.close()
        self._jobs.clear()

    def wake(self) -> None:
        """Say that something has changed."""
        with self._wake:
            self._wanted += 1
            self._wake.notify_all()

    def settle(self, timeout: float = 60.0) -> bool:
        """Wait until all that was due at the call is done; False when ``timeout`` is over."""
        with self._wake:
            self._wanted += 1
            goal = self._wanted
            self._wake.notify_all()
            return self._wake.wait_for(
                lambda: self._settled >= goal or self._stopping, timeout=timeout
            )

    def _loop(self) -> None:
        while not self._stopping:
            goal = self._wanted
            try:
                next_at = self.run_once()
            except Exception:
                log.exception("the simulator's engine failed in a pass; it goes on")
                next_at = self._parts.clock.now() + 1.0
            with self._wake:
                self._settled = goal
                self._wake.notify_all()
                if self._wanted == goal and not self._stopping:
                    self._wake.wait(self._pause(next_at))

    def _pause(self, next_at: float | None) -> float | None:
        if next_at is None or self._parts.clock.frozen:
            return None
        return max(0.0, min(next_at - self._parts.clock.now(), 3600.0))

    # ---- one pass
    def run_once(self) -> float | None:
        """Do all that is due now.

        Returns:
            The Unix time at which the next thing will be due, None when nothing is planned.
        """
        store = self._parts.store
        while not self._stopping:
            wanted, now = self._wanted, self._parts.clock.now()
            self._drop_expired_files(now)
            due = store.due_batches(now)
            if not due:
                moments = (store.next_due(), store.next_file_expiry())
                return min((at for at in moments if at is not None), default=None)
            self._bring_forward(due, now, wanted)
        return None

    def _bring_forward(self, due: list[BatchRecord], now: float, wanted: int) -> None:
        """Take the batches' steps in the order of time, until something new has come."""
        steps: list[tuple[float, int, Step, BatchRecord]] = []
        for batch in due:
            self._plan(steps, batch, now)
        while steps and self._wanted == wanted and not self._stopping:
            _, _, step, batch = heapq.heappop(steps)
            try:
                self._take(step, batch)
            except Exception:
                log.exception("the simulator cannot go on with %s; it fails", batch.id)
                self._give_up(batch, step.at)
            if batch.live:
                batch.cancel_at = self._parts.store.cancel_wish(batch.id)
                self._plan(steps, batch, now)

    def _plan(
        self, steps: list[tuple[float, int, Step, BatchRecord]], batch: BatchRecord, now: float
    ) -> None:
        step = decide(batch, now)
        if step.do is Do.WAIT:
            self._parts.store.postpone(batch, step.at)
        else:
            heapq.heappush(steps, (step.at, batch.seq, step, batch))

    def _give_up(self, batch: BatchRecord, at: float) -> None:
        """What should never happen ends this batch alone, and in the open."""
        batch.status, batch.failed_at = "failed", at
        batch.errors = [entry("server_error", "The batch could not be processed.")]
        self._finish(batch, [], at)

    def _drop_expired_files(self, now: float) -> None:
        for file_id in self._parts.store.expired_files(now):
            self._parts.store.delete_file(file_id)
            if not self._parts.store.in_use(file_id):
                self._parts.shelf.remove(file_id)

    def _take(self, step: Step, batch: BatchRecord) -> None:
        if step.do is Do.VALIDATE:
            self._validate(batch, step.at)
        elif step.do is Do.WORK:
            self._work(batch, step)
        elif step.do is Do.FINALIZE:
            batch.status, batch.finalizing_at = "finalizing", step.at
            self._parts.store.save_progress(batch)
        elif step.do is Do.CANCEL:
            batch.status, batch.cancelling_at = "cancelling", step.at
            self._parts.store.save_progress(batch)
        elif step.do is Do.COMPLETE:
            self._end(batch, "completed", step.at)
        elif step.do is Do.EXPIRE:
            self._end(batch, "expired", step.at)
        else:
            self._end(batch, "cancelled", step.at)

    # ---- the verbs
    def _validate(self, batch: BatchRecord, at: float) -> None:
        parts = self._parts
        file = parts.store.file(batch.input_file_id, batch.account)
        if file is None:
            found = Validation([file_not_found(batch.input_file_id)])
        else:
            path = parts.shelf.path(file.id)
            found = validate(path, batch.endpoint, parts.settings.limits, parts.settings.models)
        batch.model = None if found.model is None else snapshot(found.model)
        if "billing_limit" in batch.quirks:
            limit = billing_limit()
            found.errors.append(entry(str(limit.code), limit.message))
        if not found.errors and found.model:
            found.errors.extend(self._over_token_limit(batch, found))
        if found.errors:
            batch.status, batch.failed_at, batch.errors = "failed", at, found.errors
            self._finish(batch, [], at)
            return
        save_index(parts.shelf.index_path(batch.input_file_id), found.offsets)
        batch.status, batch.in_progress_at = "in_progress", at
        batch.total, batch.enqueued_tokens = found.total, found.tokens
        batch.output_file_id, batch.error_file_id = new_file_id(), new_file_id()
        parts.store.save_progress(batch)

    def _over_token_limit(self, batch: BatchRecord, found: Validation) -> list[dict[str, object]]:
        account = self._parts.settings.named(batch.account)
        model = str(found.model)
        limit = account.token_limit(model)
        enqueued = self._parts.store.enqueued_tokens(batch.account, str(batch.model))
        if "token_limit" in batch.quirks or enqueued + found.tokens > limit:
            return [token_limit(model, account.name, limit)]
        return []

    def _job(self, batch: BatchRecord) -> Job:
        job = self._jobs.get(batch.id)
        if job is None:
            parts = self._parts
            offsets = load_index(parts.shelf.index_path(batch.input_file_id))
            threads = parts.settings.upstream_concurrency if parts.settings.upstream else 1
            job = Job(
                batch,
                parts.shelf,
                offsets,
                seed=parts.settings.seed,
                answerer=parts.answerer,
                faults=parts.faults,
                threads=threads,
            )
            self._jobs[batch.id] = job
        return job

    def _work(self, batch: BatchRecord, step: Step) -> None:
        stop = min(step.lines, batch.done + _SLICE)
        made = self._job(batch).run(batch, stop, step.at)
        shelf = self._parts.shelf
        for file_id, size, data in (
            (batch.output_file_id, batch.out_bytes, made.output),
            (batch.error_file_id, batch.err_bytes, made.errors),
        ):
            with shelf.path(file_id).open("ab") as file:
                file.truncate(size)  # what a kill left beyond the last commit
                file.write(data)
        batch.out_bytes += len(made.output)
        batch.err_bytes += len(made.errors)
        self._parts.store.save_progress(batch, made.runs)
        self._parts.faults.keep()

    def _end(self, batch: BatchRecord, status: str, at: float) -> None:
        if status != "completed":
            self._write_unfinished(batch, f"batch_{status}")
        batch.status = status
        setattr(batch, f"{status}_at", at)
        files = self._result_files(batch, at)
        if not self._finish(batch, files, at):
            return  # a wish to cancel came in between: the next look decides anew
        job = self._jobs.pop(batch.id, None)
        if job:
            job.close()
        if self._parts.store.file(batch.input_file_id) is None:
            self._parts.shelf.remove(batch.input_file_id)  # deleted while it was in use

    def _finish(self, batch: BatchRecord, files: list[FileRecord], at: float) -> bool:
        hooks = self._parts.hooks
        done = self._parts.store.finish(
            batch,
            files,
            lambda db: hooks.note(db, batch, at),
            unless_cancelled=batch.status == "completed",
        )
        if done:
            hooks.wake()
        return done

    def _write_unfinished(self, batch: BatchRecord, code: str) -> None:
        if batch.in_progress_at is None or "unfinished_missing" in batch.quirks:
            return
        with self._parts.shelf.path(batch.error_file_id).open("ab") as file:
            file.truncate(batch.err_bytes)
            for line in self._job(batch).unfinished(batch, code):
                batch.err_bytes += file.write(line)
        batch.failed += batch.total - batch.done

    def _result_files(self, batch: BatchRecord, at: float) -> list[FileRecord]:
        """Trim the result files to what counts; an empty one is taken away, its id with it."""
        life = batch.output_expires_after or _RESULT_LIFE
        files: list[FileRecord] = []
        for kind in ("output", "error"):
            file_id = str(getattr(batch, f"{kind}_file_id"))
            size = batch.out_bytes if kind == "output" else batch.err_bytes
            keep_empty = kind == "error" and "empty_error_file" in batch.quirks
            if not file_id or (size == 0 and not keep_empty):
                setattr(batch, f"{kind}_file_id", "")
                continue
            if size and "no_final_newline" in batch.quirks:
                size -= 2 if "crlf" in batch.quirks else 1
            with self._parts.shelf.path(file_id).open("ab") as file:
                file.truncate(size)
            name = f"{batch.id}_{kind}.jsonl"
            files.append(
                FileRecord(file_id, batch.account, size, at, at + life, name, "batch_output")
            )
        return files


def plan_phases(batch: BatchRecord, settings: SimulatorSettings) -> None:
    """Draw how long each phase of a new batch takes; its ``seq`` seeds the draw."""
    rng = random.Random(f"{settings.seed}/{batch.seq}/phases")  # noqa: S311 - has to repeat
    at, quirks = batch.created_at, batch.quirks
    batch.validating_s = quirks.get("long_validating", settings.validating.draw(rng, at))
    batch.working_s = settings.working.draw(rng, at)
    batch.finalizing_s = quirks.get("long_finalizing", settings.finalizing.draw(rng, at))
    batch.cancelling_s = settings.cancelling.draw(rng, at)
