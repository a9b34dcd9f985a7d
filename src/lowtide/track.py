"""Track: batches at the provider are followed to their end."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from celery.utils.log import get_logger

from lowtide import failpoints, leases, limits, quiet
from lowtide.decide import next_poll
from lowtide.errors import ProviderError, SettingsError, StateError
from lowtide.ledger import BatchState
from lowtide.pipeline import Next
from lowtide.providers import RemoteBatch

if TYPE_CHECKING:
    from lowtide.ledger import BatchRow
    from lowtide.runtime import Runtime

logger = get_logger(__name__)
# How many of a lane's last batches tell how long the next one takes.
LEARN_FROM = 20
_UNKNOWN = (
    "The provider does not know the batch. Does the account's key belong to the project in which "
    "it was made?"
)


def track(rt: Runtime, batch_ids: Sequence[str]) -> dict[str, Next | None]:
    """Reads the state of batches, with as few calls as the provider allows.

    Args:
        batch_ids: Our ids. Batches that are not at the provider now are left as they are.

    Returns:
        For each id what comes next; None when there is nothing to track any more. An id that
        another replica holds is left out.
    """
    after: dict[str, Next | None] = {}
    by_account: dict[str, list[BatchRow]] = defaultdict(list)
    for batch_id in batch_ids:
        batch = rt.ledger.batch(batch_id)
        if batch is None or batch.state is not BatchState.SUBMITTED:
            after[batch_id] = None
        else:
            by_account[batch.account].append(batch)
    for account, batches in by_account.items():
        after.update(_track_account(rt, account, batches))
    return after


def _track_account(
    rt: Runtime, account: str, batches: Sequence[BatchRow]
) -> dict[str, Next | None]:
    try:
        remotes = rt.provider(account).statuses([str(batch.provider_batch_id) for batch in batches])
    except (ProviderError, SettingsError) as error:
        quiet.warn(logger, "provider", "Account %s: status not read: %s", account, error)
        return {batch.id: _again(rt, batch) for batch in batches}
    after: dict[str, Next | None] = {}
    for batch in batches:
        remote = remotes.get(str(batch.provider_batch_id))
        if isinstance(remote, ProviderError):
            quiet.warn(logger, "provider", "Batch %s: status not read: %s", batch.id, remote)
            after[batch.id] = _again(rt, batch)
            continue
        if remote is None:
            remote = _unknown(rt, batch)
        elif batch.reason == _UNKNOWN:
            _say(rt, batch, None)
        if remote is not None and remote.ended and _is_named_late(rt, batch, remote):
            at = rt.clock.now() + rt.settings.shortest_poll(batch.account)
            after[batch.id] = Next("poll", batch.id, at=at)
        elif remote is not None and remote.ended:
            try:
                after[batch.id] = _end(rt, batch, remote)
            except StateError as error:
                # Its timer stays armed; the other batches of this call go on.
                logger.info("Batch %s: another replica is ahead: %s", batch.id, error)
        else:
            if remote is not None:
                _note(rt, batch, remote)
                _cancel_if_useless(rt, batch, remote)
            after[batch.id] = _again(rt, batch)
    return after


def _unknown(rt: Runtime, batch: BatchRow) -> RemoteBatch | None:
    """What is taken for the state of a batch that the provider does not know: none, as it may run
    in a project that the key sees no more, until its window is long over.
    """
    name = str(batch.provider_batch_id)
    if _late(rt, batch) > rt.settings.stuck_after:
        logger.error("Batch %s: the provider lost %s for good: sent again", batch.id, name)
        return RemoteBatch(name, "expired")
    if batch.reason != _UNKNOWN:
        text = "Batch %s: account %s has no %s, and is asked again: %s"
        logger.warning(text, batch.id, batch.account, name, _UNKNOWN)
        _say(rt, batch, _UNKNOWN)
    return None


def _say(rt: Runtime, batch: BatchRow, reason: str | None) -> None:
    """Notes for people what is strange about a batch, unless another replica holds it."""
    rt.ledger.move_free(batch.id, rt.owner, BatchState.SUBMITTED, reason=reason)


def _again(rt: Runtime, batch: BatchRow) -> Next:
    at = next_poll(
        rt.clock.now(),
        batch.submitted_at or rt.clock.now(),
        batch.expected_end,
        shortest=rt.settings.shortest_poll(batch.account),
        longest=rt.settings.poll_max,
    )
    return Next("poll", batch.id, at=at)


def _is_named_late(rt: Runtime, batch: BatchRow, remote: RemoteBatch) -> bool:
    """Whether the file with a batch's answers is still to be named by the provider.

    Taken at its word such a batch has no answers, and all of it would be sent and paid again. Not
    for ever: a service may count as completed what it writes nowhere.
    """
    if remote.status == "failed" or remote.output_file_id or not remote.counts.completed:
        return False
    since = rt.buffer.since(batch.id, "unnamed")
    if rt.clock.now() - since < rt.settings.adopt_wait:
        return True
    logger.warning(
        "Batch %s is %s with %d answers, and the provider names no file of them: sent again",
        batch.id,
        remote.status,
        remote.counts.completed,
    )
    return False


def _note(rt: Runtime, batch: BatchRow, remote: RemoteBatch) -> None:
    """Shows how far the provider is; only what people see, so no lease is needed."""
    rt.buffer.set_summary(
        batch.id,
        provider_status=remote.status,
        completed=remote.counts.completed,
        failed=remote.counts.failed,
    )


def _learn(rt: Runtime, lane: str) -> None:
    """Notes for the lane's buffer how long its batches take."""
    last = rt.ledger.turnarounds(lane=lane, limit=LEARN_FROM)
    if last:
        took = statistics.median(each.ended_at - each.submitted_at for each in last)
        rt.buffer.note_turnaround(lane, took)


def _cancel_if_useless(rt: Runtime, batch: BatchRow, remote: RemoteBatch) -> None:
    """Cancels a batch that runs far past its window, or for which nobody waits any more.

    One that is late is followed on until the provider says that it ended: only then is what it
    did not finish sent again, so that nothing is ever in two batches that run. Who revokes the
    last of a batch cancels it at once, but for one that is just being created, and unless the
    provider is away.
    """
    late = _late(rt, batch)
    if remote.status == "cancelling":
        return
    if late > rt.settings.stuck_after:
        logger.warning("Batch %s is %.0f h past its window: cancelling it", batch.id, late / 3600)
    elif remote.status == "finalizing" or _is_waited_for(rt, batch):
        return
    else:
        logger.info("Batch %s: nobody waits for it: cancelling it", batch.id)
    try:
        rt.provider(batch.account).cancel(remote.id)
    except ProviderError as error:
        # Asked for again with its next poll; the other batches of this call go on.
        quiet.warn(logger, "provider", "Batch %s: not cancelled: %s", batch.id, error)


def _is_waited_for(rt: Runtime, batch: BatchRow) -> bool:
    return bool(rt.ledger.requests_in(batch.id, states=("RECORDED",), limit=1))


def _late(rt: Runtime, batch: BatchRow) -> float:
    """Seconds since the end of the batch's window; negative before it."""
    window = rt.settings.window(batch.account)
    window_end = batch.expires_at or (batch.submitted_at or rt.clock.now()) + window
    return rt.clock.now() - window_end


def _end(rt: Runtime, batch: BatchRow, remote: RemoteBatch) -> Next:
    failpoints.reach("poll.read")
    moved = rt.ledger.move_free(
        batch.id,
        rt.owner,
        BatchState.ENDED,
        ended_at=max(remote.ended_at or rt.clock.now(), batch.submitted_at or 0.0),
        provider_status=remote.status,
        output_file_id=remote.output_file_id,
        error_file_id=remote.error_file_id,
    )
    if moved is None:
        raise leases.taken(batch.id)
    failpoints.reach("poll.ended")
    rt.buffer.set_summary(batch.id, state=BatchState.ENDED, provider_status=remote.status)
    if batch.submitted_at is not None:
        _learn(rt, batch.lane)
    limits.room_returned(rt, batch.account, batch.model)
    return Next("fetch", batch.id)
