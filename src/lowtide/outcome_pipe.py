"""Results and chord parts of many tasks in one Redis script each.

Celery's tracer stores each result with three round trips and each chord part with one more. While
a pipe is open, its backend's SUCCESS writes and chord parts are collected and go out together: a
script takes them all, as a client has about as much work with each command as with a result.
All else (failures, retries, the last part of each chord) first flushes the pipe and then takes
Celery's own way. Other backends than Redis are left as they are.
"""
# ruff: noqa: SLF001 - Celery's backends have no public place to step in

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import cached_property, partial
from itertools import chain
from typing import Any, Self

from celery import Celery, states
from celery.app.task import Context
from celery.backends.redis import RedisBackend
from celery.utils.log import get_logger
from kombu.exceptions import ContentDisallowed, SerializationError
from redis.exceptions import ResponseError
from sqlalchemy.exc import DataError

from lowtide import failpoints, scripts
from lowtide.current import Current
from lowtide.errors import Superseded
from lowtide.stored_form import Form, form_of

logger = get_logger(__name__)
# What is sent at once. Redis serves nobody else meanwhile.
_MOST = 200
_MOST_BYTES = 4_000_000
_RETRIES = 3
# What is wrong with one task's value, whichever backend it is for.
_OWN = (
    *(SerializationError, ContentDisallowed, DataError),
    *(TypeError, ValueError, NotImplementedError),
)
_current: ContextVar[OutcomePipe | None] = ContextVar("lowtide_outcome_pipe", default=None)


class OutcomePipe:
    """Collects what is written for the tasks of one slice; a context manager.

    Args:
        app: Its result backend is written to.
        may_write: Asked before anything is stored: whether nobody else can have taken over.
        collects: Whether results are stored together; if not, each as Celery does, but for
            nothing after trouble.

    Attributes:
        trouble: What went wrong with the result backend, if anything. Since the last flush
            nothing is sure then, and chord parts are not sure at all; nothing more is stored.
        untold: Ids of tasks whose part their chord's keys in Redis do not take.
    """

    def __init__(
        self, app: Celery, may_write: Callable[[], bool] = lambda: True, *, collects: bool = True
    ) -> None:
        self.trouble: Exception | None = None
        self.untold: set[str] = set()
        self._may_write = may_write
        self._backend = app.backend
        self._tasks = app.tasks
        self._collects = collects
        self._pipes = collects and isinstance(self._backend, RedisBackend)
        self._results: list[tuple[str, int, str | bytes]] = []
        self._parts: list[tuple[list[str], tuple[Any, ...]]] = []
        self._bytes = 0
        self._last_parts: dict[str, tuple[Context, str, Any]] = {}
        self._token: Token[OutcomePipe | None] | None = None

    def __enter__(self) -> Self:
        self.watch(self._backend)
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._finish()
        finally:
            if self._token is not None:
                _current.reset(self._token)

    @property
    def is_empty(self) -> bool:
        """Whether all that was written is stored."""
        return not self._results and not self._parts

    def watch(self, backend: Any) -> None:
        """Sees to it that `backend` writes through the pipe that is open, and tells of trouble.

        Celery makes backends one for each thread; each is patched once.
        """
        if "_lowtide_watched" not in backend.__dict__:
            _patch(backend)

    def flush(self) -> None:
        """Sends what is collected.

        Raises:
            Exception: Redis did not take it; `trouble` tells the same.
        """
        if self.is_empty:
            return
        try:
            self.check()
            self._backend.ensure(self._execute, (), max_retries=_RETRIES)
        except Exception as error:
            self.trouble = error
            raise
        self._results, self._parts, self._bytes = [], [], 0

    def check(self) -> None:
        """After a standstill somebody else may have stored the results: they are not ours then.

        Asked before a task is ended, too: one that ignores its result stores nothing, but has
        links to send.

        After trouble nothing is stored, even if it would be possible again: Celery's tracer would
        end the task with that trouble, which is not the task's, in place of its own outcome.

        Raises:
            Exception: Nothing may be stored.
        """
        if self.trouble is None and not self._may_write():
            self.trouble = Superseded("The claim ran out before the results were stored.")
        if self.trouble is not None:
            raise self.trouble

    @cached_property
    def _form(self) -> Form:
        return form_of(self._backend)

    def collects_for(self, backend: Any) -> bool:
        """Whether successes that are stored in `backend` are collected."""
        return self._pipes and backend is self._backend

    def takes(self, backend: Any, state: str) -> bool:
        """Whether an outcome in `state` for `backend` goes into the pipe; flushes it if not."""
        if state == states.SUCCESS and self.collects_for(backend):
            return True
        self.flush()
        self.check()
        return False

    def store(self, task_id: str, result: Any, traceback: Any, request: Context | None) -> None:
        """Collects a SUCCESS result."""
        backend = self._backend
        value = self._form(task_id, result, traceback, request)
        if len(value) > backend._MAX_STR_VALUE_SIZE:
            raise ValueError(f"the result of task {task_id} is too large for the Redis backend")
        in_chord = request is not None and request.chord
        # A chord with nested groups reads its members' results when the last one is there.
        expires = backend._chord_result_expires if in_chord else backend.expires
        self._results.append((backend.get_key_for_task(task_id), expires or 0, value))
        self._grown(value)

    def chord_part(self, request: Context, state: str, result: Any) -> None:
        """Collects a part of a chord; the newest of each chord waits for the end of the slice."""
        earlier = self._last_parts.get(request.group)
        self._last_parts[request.group] = (request, state, result)
        if earlier is not None:
            self._add_part(*earlier)

    def _add_part(self, request: Context, state: str, result: Any) -> None:
        backend = self._backend
        group, index = request.group, request.group_index
        score = "+inf" if index is None else index
        encoded = backend.encode([1, request.id, state, backend.encode_result(result, state)])
        keys = [backend.get_key_for_group(group, name) for name in (".j", ".d", ".c")]
        ordered = "1" if backend._chord_zset else "0"
        member = f"{request.id}:{score}"
        expires = backend.chord_expires or 0
        self._parts.append((keys, (member, encoded, ordered, score, expires)))
        self._grown(encoded)

    def _grown(self, value: str | bytes) -> None:
        self._bytes += len(value)
        if len(self._results) + len(self._parts) >= _MOST or self._bytes >= _MOST_BYTES:
            self.flush()

    def _execute(self) -> None:
        """Results first: whoever sees a chord's part can read its result."""
        calls = []
        if self._results:
            names, *values = zip(*self._results, strict=True)
            args = [*chain.from_iterable(zip(*values, strict=True))]
            calls.append(scripts.Call("store_results", names, args))
        if self._parts:
            keys, parts = (
                list(chain.from_iterable(each)) for each in zip(*self._parts, strict=True)
            )
            calls.append(scripts.Call("chord_parts", keys, parts))
        replies = scripts.run(self._backend.client, calls)
        if self._parts and replies[-1]:
            self._note_refused(replies[-1])

    def _note_refused(self, refused: list[Any]) -> None:
        """Parts of one chord that Redis does not take keep no other chord back."""
        for number, why in zip(refused[::2], refused[1::2], strict=True):
            error = ResponseError(why.decode())
            if not _is_wrong_type(error):
                raise error
            member = str(self._parts[number][1][0])
            self.note_untold(member.rpartition(":")[0], error)

    def note_untold(self, task_id: str, error: Exception) -> None:
        """Notes a task whose chord has something else under its keys: it is told again later."""
        logger.error("The chord of task %s does not take its part: %s", task_id, error)
        self.untold.add(task_id)

    def _finish(self) -> None:
        """Flushes, then counts each chord's newest part as Celery does, which may fire its body."""
        if self.trouble is not None or not self._collects:
            return
        try:
            self.flush()
            failpoints.reach("deliver.stored")
            # What a chord's body descends from is the member that was told last.
            with Current() as current:
                for request, state, result in self._last_parts.values():
                    current.set(self._tasks[request.task], request)
                    self._tell_last(request, state, result)
        except Exception as error:
            self.trouble = error

    def _tell_last(self, request: Context, state: str, result: Any) -> None:
        try:
            self._backend._lowtide_chord_part(request, state, result)
        except ResponseError as error:
            if not _is_wrong_type(error):
                raise
            self.note_untold(request.id, error)


def _patch(backend: Any) -> None:
    """Routes what `backend` stores through the open pipe, if there is one."""
    store, part = getattr(backend, "_store_result", None), backend.on_chord_part_return
    if isinstance(backend, RedisBackend):
        part = _keeping_size(backend, part)
        backend.chord_error_from_stack = _unless_away(backend, backend.chord_error_from_stack)

    def store_result(
        task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kw: Any
    ) -> Any:
        pipe = _current.get()
        try:
            if pipe is not None and pipe.takes(backend, state):
                pipe.store(task_id, result, traceback, request)
                return result
            return store(task_id, result, state, traceback, request=request, **kw)  # type: ignore[misc]
        except Exception as error:
            _note(pipe, error)
            raise

    def on_chord_part_return(request: Context, state: str, result: Any, **kw: Any) -> Any:
        pipe = _current.get()
        try:
            if pipe is not None and request.group and pipe.takes(backend, state):
                pipe.chord_part(request, state, result)
                return None
            return part(request, state, result, **kw)
        except Exception as error:
            if pipe is not None and _is_wrong_type(error):
                pipe.note_untold(request.id, error)
            _note(pipe, error)
            raise

    backend._lowtide_watched = True
    backend._lowtide_chord_part = part
    if store is not None:
        backend._store_result = store_result
    backend.on_chord_part_return = on_chord_part_return


def _unless_away(backend: Any, fail_chord: Any) -> Any:
    """`fail_chord`, but for a chord whose parts could not be read for now.

    Celery fails it, whatever the reason. They are still there: while the backend is away they
    wait, and the part is told again.
    """

    def chord_error_from_stack(callback: Any, exc: Any = None) -> Any:
        cause = sys.exc_info()[1]
        if _current.get() is not None and isinstance(cause, _connection_errors(backend)):
            raise cause
        return fail_chord(callback, exc)

    return chord_error_from_stack


def _keeping_size(backend: Any, part: Any) -> Any:
    """`part`, after whose lost connection the chord still knows its size: Celery deletes it."""

    def tell(request: Context, *args: Any, **kw: Any) -> Any:
        if not request.group:
            return part(request, *args, **kw)
        name = backend.get_key_for_group(request.group, ".s")
        size = backend.client.get(name)
        try:
            return part(request, *args, **kw)
        except _connection_errors(backend):
            if size is not None:
                options = {"nx": True, "ex": backend.chord_expires or None}
                backend.ensure(partial(backend.client.set, name, size, **options), ())
            raise

    return tell


def _connection_errors(backend: Any) -> tuple[type[BaseException], ...]:
    return tuple(getattr(backend, "connection_errors", ()))


def _note(pipe: OutcomePipe | None, error: Exception) -> None:
    if pipe is not None and not is_own(error):
        pipe.trouble = error


def is_own(error: Exception) -> bool:
    """Whether the result backend refuses one task's value or key, and would again.

    Celery makes the task fail then. Any other error is taken for trouble of the backend, also one
    that is not known: the answer is paid, and waits.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENAMETOOLONG
    return isinstance(error, _OWN) or _is_wrong_type(error)


def _is_wrong_type(error: Exception) -> bool:
    """Whether something else lies under a key of Redis than is to be written there."""
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)
