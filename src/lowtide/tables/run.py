"""A run: a table on its way through a batch task. It can stop at any row and go on later.

The id of each row's task is made from the run and the row, so a row that is sent again, after a
crash for instance, is the same call and is paid once.
"""

from __future__ import annotations

import fcntl
import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from lowtide import bulk
from lowtide.returned import returned
from lowtide.tables.formats import (
    Row,
    TableError,
    check_output,
    columns_of,
    read_rows,
    write_rows,
)
from lowtide.tables.plan import Plan
from lowtide.tables.store import Store

if TYPE_CHECKING:
    from celery import Celery

_SEND = 500
_LOOK = 1000
_SHORTEST, _LONGEST = 0.5, 15.0
# Looking for answers takes at most this share of the time.
_LOOK_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        rows: Rows of the table.
        sent: Rows that were sent; those without text count as sent and failed.
        answered: Rows with an answer.
        failed: Rows with an error.
        expected_end: When the last answer should come, epoch seconds; None when not known.
        stopped: It does not go on until somebody says so: one stopped it, or has not begun it.
        trouble: Why it does not go on by itself, None when it does.
    """

    rows: int
    sent: int
    answered: int
    failed: int
    expected_end: float | None = None
    stopped: bool = False
    trouble: str | None = None

    @property
    def done(self) -> int:
        """Rows that have come back."""
        return self.answered + self.failed

    @property
    def finished(self) -> bool:
        """Whether every row has come back."""
        return self.done >= self.rows


OnProgress: TypeAlias = Callable[[Progress], Any]


class Run:
    """One table with one plan, kept in a folder.

    Args:
        folder: Of the run; made by `create`.

    Raises:
        TableError: There is no run in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "run.db").exists():
            raise TableError(f"There is no run in {folder}.")
        self._store = Store(folder / "run.db")
        self.name = str(self._store.fact("name"))
        self.source = Path(self._store.fact("source"))
        self.plan = Plan(**self._store.fact("plan"))
        self.columns: list[str] = self._store.fact("columns")
        self.rows = int(self._store.fact("rows"))
        self.started_at = float(self._store.fact("started_at"))
        self._namespace = uuid.UUID(self._store.fact("namespace"))

    @classmethod
    def create(
        cls,
        folder: Path,
        source: Path,
        plan: Plan,
        *,
        name: str | None = None,
        stopped: bool = False,
    ) -> Run:
        """Makes a run, or opens the one that is in `folder`.

        Args:
            folder: Of the run.
            source: The table.
            plan: What becomes of a row.
            name: What people know the table by, its file's name when None.
            stopped: A new run waits until somebody has it go.

        Raises:
            TableError: The table cannot be read, or the plan does not fit it.
        """
        if not (folder / "run.db").exists():
            columns = columns_of(source)
            plan.check(columns)
            rows = sum(1 for _ in read_rows(source))
            folder.mkdir(parents=True, exist_ok=True)
            # Under another name first: a run is there whole or not at all.
            part = folder / "new.db"
            part.unlink(missing_ok=True)
            with closing(Store(part)) as store:
                store.note(
                    name=name or source.name,
                    source=str(source.absolute()),
                    plan=asdict(plan),
                    columns=columns,
                    rows=rows,
                    started_at=time.time(),
                    namespace=str(uuid.uuid4()),
                    stopped=stopped,
                )
            part.replace(folder / "run.db")
        return cls(folder)

    @classmethod
    def of_command(cls, runs: Path, source: Path, plan: Plan, out: Path) -> Run:
        """The run of a command line: the same command, with the file unchanged, finds it again.

        Args:
            runs: Folder that all runs are kept in.
            source: The table.
            plan: What becomes of a row.
            out: Where the answers are to go.

        Raises:
            TableError: The table cannot be read, the plan does not fit it, or its answers cannot
                be written.
        """
        try:
            stat = source.stat()
        except OSError as error:
            raise TableError(f"{source} cannot be read: {error.strerror}.") from None
        check_output(out, source)
        seen = [str(source.absolute()), stat.st_size, stat.st_mtime_ns, str(out.absolute())]
        described = orjson.dumps([*seen, asdict(plan)], option=orjson.OPT_SORT_KEYS)
        ident = hashlib.blake2b(described, digest_size=6).hexdigest()
        # The page carries on what is on its way, and this one nobody has said yes to yet.
        return cls.create(runs / ident, source, plan, stopped=True)

    @property
    def id(self) -> str:
        """Name of its folder."""
        return self.folder.name

    def close(self) -> None:
        """Closes its database."""
        self._store.close()

    def task_id(self, number: int) -> str:
        """Id of the task of row `number`, counted from 0."""
        return str(uuid.uuid5(self._namespace, str(number)))

    def progress(self) -> Progress:
        """How far it is, as last noted."""
        sent, answered, failed = self._store.counts()
        return Progress(
            self.rows,
            sent,
            answered,
            failed,
            self._store.fact("expected_end"),
            bool(self._store.fact("stopped")),
            self._store.fact("trouble"),
        )

    def common_error(self) -> tuple[str, int] | None:
        """The error that most rows have, and how many do; None when no row has one."""
        return self._store.common_error()

    def go(
        self,
        app: Celery,
        on_progress: OnProgress = lambda _: None,
        stop: Event | None = None,
    ) -> Progress:
        """Sends what is not sent, and waits for what has not come back.

        Args:
            app: The app to send with; the task's code need not be in it.
            on_progress: Called after each step.
            stop: Ends it early; `go` may be called again at any time.

        Returns:
            How far it is: finished, unless it was stopped.

        Raises:
            TableError: Another process is at it.
            kombu.exceptions.OperationalError: The broker cannot be reached.
        """
        over = stop or Event()
        with self._alone():
            self._store.note(stopped=False, trouble=None)
            try:
                self._send(app, on_progress, over)
                self._collect(app, on_progress, over)
            except Exception as error:
                self._store.note(trouble=f"{type(error).__name__}: {error}")
                raise
            return self.progress()

    def stop(self) -> None:
        """Notes that it shall not go on by itself; what was sent is still answered."""
        self._store.note(stopped=True)

    def write(self, out: Path) -> int:
        """Writes the table with answers and errors, in the order of its rows.

        Rows that have not come back have neither. Constant memory.

        Returns:
            How many rows.
        """
        columns = self.plan.output_columns(self.columns)
        return write_rows(out, columns, self._joined(), like=self.source)

    def _joined(self) -> Iterator[Row]:
        results = self._store.results()
        known = next(results, None)
        for number, row in enumerate(read_rows(self.source)):
            answer = error = None
            if known is not None and known[0] == number:
                answer, error = (known[2], None) if known[1] else (None, known[2])
                known = next(results, None)
            yield {**row, self.plan.answer: answer, self.plan.error: error}

    def _send(self, app: Celery, on_progress: OnProgress, over: Event) -> None:
        upto = int(self._store.fact("upto") or 0)
        calls: dict[int, Any] = {}
        empty: list[int] = []
        number = -1
        for number, row in enumerate(read_rows(self.source)):
            if number < upto:
                continue
            call = self.plan.call(row)
            if call is None:
                empty.append(number)
            else:
                calls[number] = call
            if len(calls) + len(empty) >= _SEND:
                self._send_some(app, calls, empty, number + 1)
                calls, empty = {}, []
                on_progress(self.progress())
                if over.is_set():
                    return
        if calls or empty:
            self._send_some(app, calls, empty, number + 1)
            on_progress(self.progress())

    def _send_some(self, app: Celery, calls: dict[int, Any], empty: list[int], upto: int) -> None:
        if calls:
            task = self.plan.task
            bulk.delay_many(
                app,
                task,
                [app.signature(task, args, kwargs) for args, kwargs in calls.values()],
                task_ids=[self.task_id(number) for number in calls],
            )
        self._store.sent(calls, empty, upto)

    def _collect(self, app: Celery, on_progress: OnProgress, over: Event) -> None:
        while not over.is_set():
            began = time.monotonic()
            came = self._look(app, over)
            progress = self.progress()
            on_progress(progress)
            if progress.finished:
                self._store.note(finished_at=time.time())
                return
            took = time.monotonic() - began
            pause = max(_SHORTEST, took * (1 - _LOOK_SHARE) / _LOOK_SHARE)
            if not came:
                self._expect(app)
            over.wait(min(pause, _LONGEST))

    def _look(self, app: Celery, over: Event) -> int:
        """One pass over the rows that are awaited; returns how many came back."""
        after, came = -1, 0
        while (numbers := self._store.waiting(after, _LOOK)) and not over.is_set():
            after = numbers[-1]
            ids = {self.task_id(number): number for number in numbers}
            found = [(ids[task], ok, value) for task, ok, value in returned(app, list(ids))]
            if found:
                self._store.came(found)
            came += len(found)
        return came

    def _expect(self, app: Celery) -> None:
        """Notes when the last answer should come, by what is known of the first rows' batches."""
        from redis.exceptions import RedisError

        from lowtide import runtime

        ids = [self.task_id(number) for number in self._store.waiting(-1, _LOOK)]
        try:
            places = runtime.of(app).buffer.where(ids)
        except (RedisError, OSError):
            return
        ends = [place.expected_end for place in places if place and place.expected_end]
        self._store.note(expected_end=max(ends, default=None))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TableError(f"Run {self.id} is being worked on by another process.") from None
            yield


def runs_in(folder: Path) -> list[Run]:
    """The runs kept in a folder, the one started last first."""
    found = [Run(path.parent) for path in folder.glob("*/run.db")]
    return sorted(found, key=lambda run: run.started_at, reverse=True)
