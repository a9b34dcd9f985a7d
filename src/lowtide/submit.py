"""Submit: a sealed batch is recorded, uploaded and created at the provider, exactly once.

Before the call that costs money the intent is noted; after a crash or an unclear answer the
provider is asked whether it has a batch that carries our id, and only when it has none is one
created. The input file is deleted first: a create that is still on its way then finds no file
and fails validation, unpaid.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from celery.utils.log import get_logger

from lowtide import control, failpoints, gate, limits, quiet, spending, uploads
from lowtide.decide import backoff, expected_end, next_poll
from lowtide.errors import (
    AccountPaused,
    BatchFailed,
    CreateAmbiguous,
    ProviderError,
    ProviderUnavailable,
    StateError,
)
from lowtide.lane import Lane
from lowtide.leases import held
from lowtide.ledger import BatchState
from lowtide.pipeline import Next
from lowtide.recording import record
from lowtide.request import lines_of
from lowtide.spool import spool_folder
from lowtide.track import LEARN_FROM

if TYPE_CHECKING:
    from lowtide.ledger import BatchRow, Lease
    from lowtide.providers import Provider, RemoteBatch
    from lowtide.runtime import Runtime

logger = get_logger(__name__)
# How a service answers that has no list of batches.
_NO_LIST = frozenset({404, 405})
_WRITE = 1 << 20  # bytes that go to the disk at once


def submit(rt: Runtime, batch_id: str) -> Next | None:
    """Takes a batch from wherever it stands before submission to `SUBMITTED`.

    Returns:
        The next step, None when there is nothing to submit.

    Raises:
        StateError: Another replica holds the batch.
        ProviderError: The provider failed in passing; the batch waits.
    """
    known = record(rt, batch_id)
    if known is None or known.state not in _STEPS:
        return None
    with held(rt, batch_id) as lease:
        batch = rt.ledger.batch(batch_id)
        if batch is None or batch.state not in _STEPS:
            return None
        if batch.state is BatchState.RECORDED and (batch.next_at or 0.0) > rt.clock.now():
            return Next("submit", batch_id, at=batch.next_at)
        return _advance(rt, lease, batch)


def _advance(rt: Runtime, lease: Lease, batch: BatchRow) -> Next | None:
    provider = rt.provider(batch.account)
    passed, uploaded = False, batch.input_file_id
    try:
        while batch.state in _STEPS:
            # Once: the probe of a suspended account that let it pass is not given twice.
            if batch.state in _GATED and not passed:
                looked = gate.look(rt, lease, batch)
                if isinstance(looked, gate.Stopped):
                    return looked.after
                batch, passed = looked, True
            again = batch.state is BatchState.UPLOADED and batch.input_file_id == uploaded
            step = _create_again if again else _STEPS[batch.state]
            batch = step(rt, provider, lease, batch)
    except AccountPaused as error:
        control.suspend(rt, batch.account, str(error))
        now = rt.ledger.batch(batch.id)
        if now is not None and now.state is BatchState.SUBMITTING:
            # It may exist, and be paid: it is looked for until that is settled.
            return Next("submit", batch.id, at=rt.clock.now() + rt.settings.poll_max)
        return gate.hold(rt, lease, limits.Wait(str(error), rt.settings.poll_max))
    except BatchFailed as error:
        rt.ledger.move(
            lease,
            BatchState.ENDED,
            ended_at=rt.clock.now(),
            provider_status="rejected",
            reason=str(error),
        )
        return Next("fetch", batch.id)
    except ProviderUnavailable as error:
        wait = float(error.details.get("retry_after") or _patience(rt, batch))
        quiet.warn(
            logger, "provider", "Batch %s is tried again in %.0f s: %s", batch.id, wait, error
        )
        # The state is the ledger's: a create in doubt has taken it on.
        stands = rt.ledger.batch(batch.id) or batch
        rt.ledger.move(lease, stands.state, reason=str(error))
        return Next("submit", batch.id, at=rt.clock.now() + wait)
    if batch.state != BatchState.SUBMITTED:
        return None
    return _submitted(rt, batch)


def _submitted(rt: Runtime, batch: BatchRow) -> Next:
    failpoints.reach("submit.noted")
    limits.submitted(rt, batch.account, batch.model)
    spending.call_next(rt, batch)
    rt.buffer.set_summary(
        batch.id,
        state=BatchState.SUBMITTED,
        provider_batch_id=batch.provider_batch_id,
        requests=batch.requests,
        expected_end=batch.expected_end,
    )
    at = next_poll(
        rt.clock.now(),
        batch.submitted_at or rt.clock.now(),
        batch.expected_end,
        shortest=rt.settings.shortest_poll(batch.account),
        longest=rt.settings.poll_max,
    )
    return Next("poll", batch.id, at=at)


def _patience(rt: Runtime, batch: BatchRow) -> float:
    """Seconds until the next try: half as long as it has failed so far, within bounds."""
    since = batch.uploaded_at or batch.recorded_at
    tried = int(max(0.0, rt.clock.now() - since) / max(rt.settings.retry_delay, 0.001)) + 1
    return backoff(tried.bit_length(), rt.settings.retry_delay)


def _upload(rt: Runtime, provider: Provider, lease: Lease, batch: BatchRow) -> BatchRow:
    if lease.fence > 1:
        with suppress(ProviderUnavailable):  # they are looked for again when the batch is closed
            uploads.forget(provider, batch)
    with _spooled(rt, batch) as (path, count):
        if not count:
            return _empty(rt, lease)
        file_id = provider.upload(path, batch_id=batch.id)
    failpoints.reach("submit.uploaded")
    try:
        return rt.ledger.move(
            lease, BatchState.UPLOADED, uploaded_at=rt.clock.now(), input_file_id=file_id
        )
    except StateError:
        with suppress(ProviderError):  # they are looked for when the batch is closed
            provider.delete_file(file_id)  # another replica is ahead, with a file of its own
        raise


def _empty(rt: Runtime, lease: Lease) -> BatchRow:
    return rt.ledger.move(lease, BatchState.CANCELLED, reason="every request left the batch")


@contextmanager
def _spooled(rt: Runtime, batch: BatchRow) -> Iterator[tuple[Path, int]]:
    """The batch's file on disk for the length of the block, and how many lines it has."""
    lane = Lane.parse(batch.lane)
    with spool_folder(rt) as folder:
        path = folder / f"{batch.id}.jsonl"
        count = 0
        with path.open("wb", buffering=_WRITE) as file:
            for chunk in rt.ledger.lines(batch.id):
                file.writelines(lines_of(lane, chunk))
                count += len(chunk)
        yield path, count


def _create_again(rt: Runtime, provider: Provider, lease: Lease, batch: BatchRow) -> BatchRow:
    """Creates the batch of a file that an earlier try uploaded, unless it was made of it.

    Nothing need say so: a gateway may refuse a create that it has passed on, and a standby that
    took the ledger over may not have heard of one.
    """
    remote = _made_before(rt, provider, batch)
    if remote is not None:
        return _adopted(rt, lease, batch, remote)
    try:
        return _create(rt, provider, lease, batch)
    except BatchFailed as error:
        # It may be the file, which is gone meanwhile; of a new one it is surely the batch.
        logger.warning("Batch %s is uploaded again: %s", batch.id, error)
        return rt.ledger.move(lease, BatchState.RECORDED, input_file_id=None, uploaded_at=None)


def _adopted(rt: Runtime, lease: Lease, batch: BatchRow, remote: RemoteBatch) -> BatchRow:
    logger.warning("Batch %s was created before, as %s, and is adopted", batch.id, remote.id)
    intended = rt.ledger.move(lease, BatchState.SUBMITTING, submitting_at=rt.clock.now())
    return _note(rt, lease, intended, remote)


def _made_before(rt: Runtime, provider: Provider, batch: BatchRow) -> RemoteBatch | None:
    """The batch that was made of the batch's file.

    Raises:
        ProviderUnavailable: It cannot be looked for now; not for longer than one in doubt is.
    """
    uploaded_at = batch.uploaded_at or rt.clock.now()
    since, file_id = uploaded_at - uploads.CLOCK_SLACK, str(batch.input_file_id)
    try:
        return provider.adopt(batch.id, input_file_id=file_id, since=since)
    except ProviderUnavailable:
        if rt.clock.now() - uploaded_at < rt.settings.adopt_wait:
            raise
    except ProviderError as error:
        logger.info("Batch %s: what was created before is not looked for: %s", batch.id, error)
    return None


def _create(rt: Runtime, provider: Provider, lease: Lease, batch: BatchRow) -> BatchRow:
    failpoints.reach("submit.noted_file")
    if rt.ledger.undelivered(batch.id) == 0:
        # All were revoked or escalated since the upload.
        uploads.delete(rt, batch, batch.input_file_id, since=batch.uploaded_at or 0.0)
        return _empty(rt, lease)
    batch = rt.ledger.move(lease, BatchState.SUBMITTING, submitting_at=rt.clock.now())
    failpoints.reach("submit.intended")
    try:
        remote = provider.create(
            str(batch.input_file_id), endpoint=batch.endpoint, batch_id=batch.id
        )
    except CreateAmbiguous as error:
        logger.warning("Batch %s may or may not have been created: %s", batch.id, error)
        return _resolve(rt, provider, lease, batch)
    except (ProviderError, BatchFailed) as error:
        # Not created, as it is told, so the intent is taken back.
        batch = rt.ledger.move(lease, BatchState.UPLOADED, submitting_at=None)
        # What is refused for good fails its tasks: they would miss answers that are paid.
        made = _made_before(rt, provider, batch) if isinstance(error, BatchFailed) else None
        if made is None:
            raise
        return _adopted(rt, lease, batch, made)
    failpoints.reach("submit.created")
    limits.count_creation(rt, batch.account)
    control.works(rt, batch.account)
    return _note(rt, lease, batch, remote)


def _resolve(rt: Runtime, provider: Provider, lease: Lease, batch: BatchRow) -> BatchRow:
    """Settles a creation in doubt: adopts the batch, or makes sure that there is none."""
    intended = batch.submitting_at or rt.clock.now()
    remote = _adopt(provider, batch, intended)
    waited = rt.clock.now() - intended
    if remote is None and waited < rt.settings.adopt_wait:
        raise ProviderUnavailable(
            f"Batch {batch.id} is not listed by the provider; looking again.",
            {"retry_after": min(rt.settings.adopt_wait - waited, rt.settings.adopt_wait / 4)},
        )
    if remote is None:
        # Without its file a create that is still on its way fails validation, unpaid.
        uploads.delete(rt, batch, batch.input_file_id, since=intended)
        failpoints.reach("adopt.deleted")
        remote = _adopt(provider, batch, intended)
    if remote is None:
        return rt.ledger.move(
            lease, BatchState.RECORDED, input_file_id=None, uploaded_at=None, submitting_at=None
        )
    logger.info("Batch %s was created after all and is adopted as %s", batch.id, remote.id)
    return _note(rt, lease, batch, remote)


def _adopt(provider: Provider, batch: BatchRow, intended: float) -> RemoteBatch | None:
    try:
        return provider.adopt(
            batch.id, input_file_id=str(batch.input_file_id), since=intended - uploads.CLOCK_SLACK
        )
    except ProviderError as error:
        if isinstance(error, AccountPaused) or error.details.get("status") not in _NO_LIST:
            raise
        # Nothing can be looked for, now or later: waiting and deleting the file is all there is.
        logger.warning(
            "Batch %s may exist, and account %s lists no batches: it is created again once its "
            "file is deleted, and paid twice should it run by then",
            batch.id,
            batch.account,
        )
        return None


def _note(rt: Runtime, lease: Lease, batch: BatchRow, remote: RemoteBatch) -> BatchRow:
    now = rt.clock.now()
    return rt.ledger.move(
        lease,
        BatchState.SUBMITTED,
        submitted_at=now,
        provider_batch_id=remote.id,
        provider_status=remote.status,
        expires_at=remote.expires_at,
        expected_end=expected_end(now, _turnarounds(rt, batch.lane)),
        reason=None,
    )


def _turnarounds(rt: Runtime, lane: str) -> list[float]:
    """Seconds that the lane's last batches took at the provider."""
    return [t.ended_at - t.submitted_at for t in rt.ledger.turnarounds(lane=lane, limit=LEARN_FROM)]


def _unhold(rt: Runtime, _provider: Provider, lease: Lease, batch: BatchRow) -> BatchRow:
    """Tries a held batch again: with its file where it was uploaded already."""
    return rt.ledger.move(
        lease, BatchState.UPLOADED if batch.input_file_id else BatchState.RECORDED, reason=None
    )


# States from which a batch goes on only while nothing is paused and limits leave room.
_GATED = frozenset({BatchState.RECORDED, BatchState.HELD})

_STEPS = {
    BatchState.RECORDED: _upload,
    BatchState.UPLOADED: _create,
    BatchState.SUBMITTING: _resolve,
    BatchState.HELD: _unhold,
}
