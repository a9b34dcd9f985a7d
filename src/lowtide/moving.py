"""Moving requests that the provider did not run into batches of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lowtide import uploads
from lowtide.ledger import BatchState
from lowtide.request import head_of

if TYPE_CHECKING:
    from lowtide.ledger import Attempt, BatchRow, Lease
    from lowtide.runtime import Runtime


def move(
    rt: Runtime,
    lease: Lease,
    batch: BatchRow,
    custom_ids: Sequence[str],
    *,
    reason: str,
    wait: float = 0.0,
    failed: Mapping[str, Attempt] | None = None,
) -> str | None:
    """Moves requests into a new batch, which is sent after `wait` seconds.

    Args:
        custom_ids: Which; those that have an outcome by now stay.
        reason: Why, for people.
        failed: custom_id → how it failed, where the provider ran the batch: this counts as an
            attempt then, and is remembered.

    Returns:
        The new batch's id, None if nothing was left to move.
    """
    at = rt.clock.now() + wait
    new_id = rt.ledger.requeue(
        lease,
        custom_ids,
        reason=reason,
        not_before=at if wait else None,
        tried=failed is not None,
        failed=failed,
    )
    if new_id is None:
        return None
    if wait:
        rt.timers.arm("submit", new_id, at)
    else:
        rt.kick("submit", new_id)
    _note(rt, batch, new_id)
    return new_id


def withdrawn(rt: Runtime, lease: Lease, batch: BatchRow) -> BatchRow:
    """A batch that was not sent in the state in which its requests may leave it, without file."""
    if batch.state is BatchState.RECORDED:
        return batch
    # First the note, or after a crash a batch would be created that names a file that is gone.
    opened = rt.ledger.move(lease, BatchState.RECORDED, input_file_id=None, uploaded_at=None)
    if batch.input_file_id:
        rt.provider(batch.account).delete_file(batch.input_file_id)
    return opened


def tokens_of(custom_id: str, blob: bytes) -> int:
    """Estimated input tokens of a stored request."""
    return head_of(custom_id, blob).tokens


def cut(
    rt: Runtime,
    lease: Lease,
    batch: BatchRow,
    most: int,
    *,
    weigh: Callable[[str, bytes], int] = tokens_of,
) -> bool:
    """Moves all requests of a batch into batches of at most `most` estimated tokens.

    Args:
        most: What one part may have together.
        weigh: What a stored request has of it, when that is not tokens: (custom_id, blob) → how
            much.

    Returns:
        False, and nothing is moved, when the batch is one line.

    Raises:
        ProviderUnavailable: Files of it could not be deleted; nothing is moved yet.
    """
    parts: list[list[str]] = []
    room = 0
    for chunk in rt.ledger.lines(batch.id):
        for custom_id, blob in chunk:
            weight = weigh(custom_id, blob)
            if not parts or weight > room:
                parts.append([])
                room = most
            parts[-1].append(custom_id)
            room -= weight
    if len(parts) <= 1:
        return False
    batch = withdrawn(rt, lease, batch)
    if lease.fence > 1:
        uploads.forget_last(rt, batch, since=batch.recorded_at)
    for part in parts:
        move(rt, lease, batch, part, reason=f"one of {len(parts)} parts of a batch too large")
    rt.ledger.move(lease, BatchState.CANCELLED, reason="cut into parts that fit")
    return True


def _note(rt: Runtime, batch: BatchRow, new_id: str) -> None:
    """Lets `.info` of tasks whose requests moved tell of their new batch."""
    rt.buffer.set_summary(new_id, lane=batch.lane, state=BatchState.RECORDED)
    for chunk in rt.ledger.blobs(new_id):
        rt.buffer.moved(
            new_id,
            [(head_of(custom_id, blob).task_id, custom_id) for custom_id, blob in chunk],
        )
