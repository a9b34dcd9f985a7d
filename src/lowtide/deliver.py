"""Deliver: a slice of answers goes back to its tasks, as if they had just returned.

Each request is claimed in the ledger, its task resumed as Celery would end it, and what became
of it is settled. A replica that dies in between leaves claims that run out; what it had written
already is then skipped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from celery.utils.log import get_logger
from msgspec import structs

from lowtide import failpoints, outcomes, uploads
from lowtide.finishing import finish
from lowtide.leases import claimed
from lowtide.pipeline import Next
from lowtide.worker_request import MAX_LOSSES

if TYPE_CHECKING:
    from lowtide.leases import Claim
    from lowtide.ledger import BatchRow
    from lowtide.runtime import Runtime

logger = get_logger(__name__)
# What a batch takes whose steps are each begun once: to be submitted, to end, to be fetched.
_LEASES = 3
# Seconds for which it is remembered what was lost.
_REMEMBERS = 86_400.0


def deliver(rt: Runtime, batch_id: str, number: int | None, hostname: str) -> Next | None:
    """Delivers one slice, and closes the batch with its last one.

    Args:
        number: Which slice; None when the batch's timer asks what became of them.
        hostname: Name of this worker, for Celery's events.

    Returns:
        What comes next for the batch; None once all is delivered.
    """
    batch = rt.ledger.batch(batch_id)
    if batch is None or batch.state != "FETCHED":
        return None
    data = None if number is None else rt.slices.get(batch_id, number)
    left = 0
    if data is not None and number is not None:
        _deliver_slice(rt, batch, outcomes.unpack(data), hostname)
        left = rt.slices.delete(batch_id, number)
    # While slices are left their requests are, which the ledger would have to count.
    if not left and rt.ledger.undelivered(batch_id) == 0:
        _close(rt, batch)
        return None
    if number is None:
        # No slice was delivered for a whole lease: their messages are lost or stand in a long
        # queue, or the slices are gone. A second message of a slice that is delivered costs little.
        waiting = rt.slices.numbers(batch_id)
        if not waiting:
            return Next("fetch", batch_id)
        for each in waiting:
            rt.send("deliver", batch_id, each)
    return Next("deliver", batch_id, at=rt.clock.now() + rt.settings.lease)


def _deliver_slice(
    rt: Runtime,
    batch: BatchRow,
    found: Sequence[outcomes.Answered | outcomes.Failed],
    hostname: str,
) -> None:
    by_id = {outcome.custom_id: outcome for outcome in found}
    with claimed(rt, batch.id, list(by_id)) as claim:
        _finish(rt, batch, claim, by_id, hostname)
    # Whose own request is here and shares with none has no followers: mostly all of them.
    alone = {row.custom_id for row in claim.rows if not row.may_share}
    for followers in _followers(rt, batch.id, by_id.keys() - alone):
        theirs = {name: structs.replace(by_id[line], custom_id=name) for name, line in followers}
        with claimed(rt, batch.id, list(theirs)) as claim:
            _finish(rt, batch, claim, theirs, hostname)


def _finish(
    rt: Runtime,
    batch: BatchRow,
    claim: Claim,
    found: Mapping[str, outcomes.Answered | outcomes.Failed],
    hostname: str,
) -> None:
    """Finishes claimed requests together; by themselves those that a replica was lost with.

    It may be one of them that ended its process. Should it do so again, the others are done, and
    the next time it comes last; what does so again and again fails.
    """
    lost = [row for row in claim.rows if row.was_lost]
    if not lost:
        finish(rt, batch, claim, found=found, hostname=hostname)
        return
    together = [row for row in claim.rows if not row.was_lost]
    if together:
        finish(rt, batch, replace(claim, rows=together), found=found, hostname=hostname)
    begun = rt.slices.begun(batch.id)
    for row in sorted(lost, key=lambda row: begun.get(row.custom_id, 0)):
        outcome = found[row.custom_id]
        if rt.slices.begin(batch.id, row.custom_id, _REMEMBERS) > MAX_LOSSES + 1:
            outcome = _killer(row.custom_id)
        alone = replace(claim, rows=[row])
        finish(rt, batch, alone, found={row.custom_id: outcome}, hostname=hostname)


def _killer(custom_id: str) -> outcomes.Failed:
    message = (
        f"The task was given its answer {MAX_LOSSES + 1} times, and each time its worker process "
        "was lost; look for a crash in native code, or for too much memory."
    )
    return outcomes.Failed(custom_id, "KilledItsWorker", message, {})


def _followers(
    rt: Runtime, batch_id: str, names: Collection[str]
) -> Iterator[Sequence[tuple[str, str]]]:
    """(custom_id, line) of those that share the lines `names`, some at a time.

    Read now, not when the answers were fetched: others may have come to wait since.
    """
    after = ""
    if not names:
        return
    while some := rt.ledger.followers(batch_id, names, after, rt.settings.slice_requests):
        yield list(some.items())
        after = max(some)


def _close(rt: Runtime, batch: BatchRow) -> None:
    """The batch's last step: the provider's files go, and it is DELIVERED."""
    since = batch.fetched_at or 0.0
    if not rt.settings.keep_files:
        for file_id in (batch.input_file_id, batch.output_file_id, batch.error_file_id):
            uploads.delete(rt, batch, file_id, since=since)
    if batch.fence > _LEASES:
        # A step was begun more than once: an upload may have come after another replica's.
        uploads.forget_last(rt, batch, since=since, but=batch.input_file_id)
    rt.slices.clear(batch.id)
    failpoints.reach("close.deleted")
    if rt.ledger.close_if_done(batch.id):
        failpoints.reach("close.closed")
        rt.buffer.set_summary(batch.id, state="DELIVERED")
        logger.info("Batch %s is delivered", batch.id)
