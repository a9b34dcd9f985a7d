"""Which state may follow which: the one table for batches and the one for requests."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from lowtide.errors import StateError


class BatchState(StrEnum):
    """How far a batch is."""

    SEALED = "SEALED"
    """Cut from its lane; in Redis only."""
    RECORDED = "RECORDED"
    """In the ledger with all its requests; nothing is at the provider yet."""
    UPLOADED = "UPLOADED"
    """The provider has the input file."""
    SUBMITTING = "SUBMITTING"
    """The intent to create the provider's batch is noted; whether it exists is open."""
    SUBMITTED = "SUBMITTED"
    """The provider's batch is known and runs."""
    ENDED = "ENDED"
    """The provider has done with it; what came of it is still to be fetched."""
    FETCHED = "FETCHED"
    """The outcome of every request is known and is being delivered."""
    DELIVERED = "DELIVERED"
    """Every request of it has an outcome. Final."""
    HELD = "HELD"
    """Kept back: the account is paused or the lane's budget is used up."""
    CANCELLED = "CANCELLED"
    """Nothing is left in it and nothing was sent. Final."""


class RequestState(StrEnum):
    """What became of a request. All but `RECORDED` are final."""

    RECORDED = "RECORDED"
    """In a batch that is not delivered."""
    DELIVERED = "DELIVERED"
    """Its answer reached the task."""
    FAILED = "FAILED"
    """Its error reached the task."""
    REVOKED = "REVOKED"
    """The task was revoked before the answer came."""
    CONTINUED = "CONTINUED"
    """Answered, and the task asked its next request."""


_B = BatchState

BATCH: Mapping[BatchState, frozenset[BatchState]] = {
    _B.SEALED: frozenset({_B.RECORDED, _B.CANCELLED}),
    # To ENDED from before SUBMITTED: refused for good, so that no provider batch exists and
    # what is left to do is to tell the tasks.
    _B.RECORDED: frozenset({_B.UPLOADED, _B.HELD, _B.CANCELLED, _B.ENDED}),
    # Back to RECORDED: the uploaded file is gone at the provider.
    _B.UPLOADED: frozenset({_B.SUBMITTING, _B.RECORDED, _B.HELD, _B.CANCELLED, _B.ENDED}),
    # Back, or ENDED: only when the provider surely created nothing. Never HELD: what may exist is
    # looked for until that is settled.
    _B.SUBMITTING: frozenset({_B.SUBMITTED, _B.UPLOADED, _B.RECORDED, _B.ENDED}),
    _B.SUBMITTED: frozenset({_B.ENDED}),
    _B.ENDED: frozenset({_B.FETCHED}),
    _B.FETCHED: frozenset({_B.DELIVERED}),
    _B.HELD: frozenset({_B.RECORDED, _B.UPLOADED, _B.CANCELLED, _B.ENDED}),
    _B.DELIVERED: frozenset(),
    _B.CANCELLED: frozenset(),
}
"""From each state of a batch the states that may follow."""

REQUEST: Mapping[RequestState, frozenset[RequestState]] = {
    RequestState.RECORDED: frozenset(set(RequestState) - {RequestState.RECORDED}),
    RequestState.DELIVERED: frozenset(),
    RequestState.FAILED: frozenset(),
    RequestState.REVOKED: frozenset(),
    RequestState.CONTINUED: frozenset(),
}
"""From each state of a request the states that may follow."""

FINAL: frozenset[BatchState] = frozenset(state for state, after in BATCH.items() if not after)
"""States in which a batch stays; no request in it is without an outcome."""

OPEN: tuple[BatchState, ...] = tuple(
    state for state in BatchState if state not in FINAL and state is not BatchState.SEALED
)
"""States of the ledger in which a batch still has something to do."""

REQUEUES: frozenset[BatchState] = frozenset({_B.RECORDED, _B.ENDED, _B.FETCHED})
"""States in which requests may leave a batch: no file of it is at the provider, or the provider
has done with it. From any other they could be sent twice."""

OUTCOMES: frozenset[RequestState] = frozenset(
    state for state, after in REQUEST.items() if not after
)
"""States that an outcome may have."""


def check_move(batch_id: str, before: BatchState, after: BatchState) -> None:
    """Passes if a batch may go from `before` to `after`; staying where it is always may.

    Raises:
        StateError: The step is not in the table.
    """
    if after is before or after in BATCH[before]:
        return
    legal = ", ".join(sorted(BATCH[before])) or "nothing, it is final"
    raise StateError(
        f"Batch {batch_id} is {before} and cannot become {after}; next may be: {legal}.",
        {"batch_id": batch_id, "state": str(before), "wanted": str(after)},
    )


def check_requeue(batch_id: str, state: BatchState) -> None:
    """Passes if requests may leave a batch that is in `state`.

    Raises:
        StateError: They might be sent twice.
    """
    if state not in REQUEUES:
        raise StateError(
            f"Batch {batch_id} is {state}: its requests cannot move to another batch, "
            "the provider may still answer them.",
            {"batch_id": batch_id, "state": str(state)},
        )


def check_outcome(custom_id: str, state: RequestState) -> None:
    """Passes if `state` can be the outcome of a request.

    Raises:
        StateError: It is not final.
    """
    if state not in OUTCOMES:
        raise StateError(
            f"Request {custom_id} cannot be settled as {state}: that is no outcome.",
            {"custom_id": custom_id, "wanted": str(state)},
        )
