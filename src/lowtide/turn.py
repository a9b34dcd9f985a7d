"""A turn: what one run of a batch task's function is to do, and what came of it.

Celery's tracer knows nothing of two phases: it calls `task.run`. Whether this run is to find the
task's next request, or to hand over what is known already, reaches it by a context variable,
which is right for threads and greenlets alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celery.app.task import Context

from lowtide.steps import Step

if TYPE_CHECKING:
    from lowtide.envelope import Envelope, Outcome


class WentOn(BaseException):
    """A replayed task would go on: retry, or put another task in its place.

    No `Exception`, so that the user's code does not take it for a failure of its own.
    """


class Asked(BaseException):
    """The run found a request: it has no result that a `__call__` of the user's could work on.

    No `Exception`, so that the user's code does not take it for a failure of its own.
    """


@dataclass(slots=True)
class Turn:
    """One run of one task.

    Attributes:
        task_id: The task; a turn is for no other that is called meanwhile.
        history: How the task's requests ended so far, oldest first.
        envelope: In the second phase, what the first left.
        known: The step that an earlier run found: the function is not run again.
        error: What an earlier run raised: it is raised again, for the tracer to handle.
        step: Set by the run: what it found.
        taken: The run has begun. A call of the same task from within it is another matter.
        is_replay: The run makes a result that was lost again: it must send nothing.
    """

    task_id: str
    history: Sequence[Outcome] = ()
    envelope: Envelope | None = None
    known: Step | None = None
    error: BaseException | None = None
    step: Step | None = None
    taken: bool = False
    is_replay: bool = False


many: ContextVar[bool] = ContextVar("lowtide_many", default=False)
"""Whether the result being made is a list, as an embeddings call for several inputs gives."""

_current: ContextVar[Turn | None] = ContextVar("lowtide_turn", default=None)


@contextmanager
def turn_of(turn: Turn) -> Iterator[Turn]:
    """Within the block, the run of `turn.task_id` does what `turn` says."""
    token = _current.set(turn)
    try:
        yield turn
    finally:
        _current.reset(token)


def current() -> Turn | None:
    """The turn of the run that is going on, if lowtide began it."""
    return _current.get()


def take(request: Context) -> Turn | None:
    """The turn that is meant for the run of `request`, if there is one; it is given out once."""
    turn = _current.get()
    if turn is None or turn.taken or turn.task_id != request.id:
        return None
    turn.taken = True
    return turn


def is_replay(request: Context) -> bool:
    """Whether the run of `request` only makes a lost result again."""
    turn = _current.get()
    return turn is not None and turn.is_replay and turn.task_id == request.id


def is_direct(request: Context) -> bool:
    """Whether the caller waits for the result: called as a function, or eagerly.

    A task that calls itself as a function does so under its own request: its turn is taken then.
    """
    turn = _current.get()
    within = turn is not None and turn.taken and turn.task_id == request.id
    return bool(within or request.called_directly or request.is_eager)
