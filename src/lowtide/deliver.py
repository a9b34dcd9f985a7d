"""Deliver: a slice of answers goes back to its tasks, as if they had just returned.

Each request is claimed in the ledger, its task resumed with Celery's own tracer, and what became
of it is settled. A replica that dies in between leaves claims that run out; what it had written
already is then skipped.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson
from celery.utils.log import get_logger

from lowtide import failpoints, outcomes, prices
from lowtide.ledger import Outcome, RequestState
from lowtide.pipeline import Next
from lowtide.request import unpack
from lowtide.resume import Resumed, Resumption, resume
from lowtide.tokens import Usage

if TYPE_CHECKING:
    from lowtide.ledger import BatchRow
    from lowtide.runtime import Runtime

logger = get_logger(__name__)

_STATES = {
    "SUCCESS": RequestState.DELIVERED,
    "SKIPPED": RequestState.DELIVERED,
    "RETRY": RequestState.DELIVERED,
    "IGNORED": RequestState.DELIVERED,
    "FAILURE": RequestState.FAILED,
    "REVOKED": RequestState.REVOKED,
    "CONTINUED": RequestState.CONTINUED,
}
# The task is over: Redis need not remember where its requests are.
_OVER = frozenset({"SUCCESS", "FAILURE", "REVOKED", "SKIPPED"})


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
    if data is not None and number is not None:
        _deliver_slice(rt, batch, outcomes.unpack(data), hostname)
        rt.slices.delete(batch_id, number)
    if rt.ledger.undelivered(batch_id) == 0:
        _close(rt, batch)
        return None
    if number is None:
        # No slice was delivered for a whole lease: they, or their messages, are gone.
        return Next("fetch", batch_id)
    return Next("deliver", batch_id, at=rt.clock.now() + rt.settings.lease)


def _deliver_slice(
    rt: Runtime,
    batch: BatchRow,
    found: Sequence[outcomes.Answered | outcomes.Failed],
    hostname: str,
) -> None:
    by_id = {outcome.custom_id: outcome for outcome in found}
    claim = f"{rt.owner}:{uuid.uuid4().hex[:12]}"
    rows = rt.ledger.claim(batch.id, list(by_id), claim, rt.settings.lease)
    failpoints.reach("deliver.claimed")
    lane = batch.to_lane()
    bodies: dict[str, dict[str, Any]] = {}
    items = []
    for row in rows:
        request = unpack(row.custom_id, lane, row.blob)
        outcome = by_id[row.custom_id]
        if isinstance(outcome, outcomes.Answered):
            body = bodies[row.custom_id] = orjson.loads(outcome.body)
            items.append(Resumption(request, (lane.endpoint, body)))
        else:
            error = outcome.exception().about(task=request.task, task_id=request.task_id)
            items.append(Resumption(request, error))
    resumed = resume(rt.app, items, hostname)
    failpoints.reach("deliver.resumed")
    # The next request of a generator is in its buffer before the answered one counts as done.
    rt.accept([each.next for each in resumed if each.next is not None])
    failpoints.reach("deliver.continued")
    settled = [
        _outcome(batch, each, by_id[each.custom_id], bodies.get(each.custom_id))
        for each in resumed
        if each.state in _STATES
    ]
    rt.ledger.settle(claim, settled)
    failpoints.reach("deliver.settled")
    later = [each.custom_id for each in resumed if each.state not in _STATES]
    if later:
        rt.ledger.unclaim(later, claim)
        logger.warning("Batch %s: %d answers are delivered later", batch.id, len(later))
    task_of = {item.request.custom_id: item.request.task_id for item in items}
    rt.buffer.forget([task_of[each.custom_id] for each in resumed if each.state in _OVER])
    failpoints.reach("deliver.forgotten")


def _outcome(
    batch: BatchRow,
    resumed: Resumed,
    found: outcomes.Answered | outcomes.Failed,
    body: dict[str, Any] | None,
) -> Outcome:
    state = _STATES[resumed.state]
    if isinstance(found, outcomes.Failed) or body is None:
        details = getattr(found, "details", {})
        return Outcome(
            custom_id=resumed.custom_id,
            state=state,
            status_code=details.get("status"),
            error_code=details.get("code"),
            error_message=getattr(found, "message", None),
        )
    model = body.get("model") or batch.model
    usage = Usage.of(body.get("usage"))
    return Outcome(
        custom_id=resumed.custom_id,
        state=state,
        status_code=found.status_code,
        provider_request_id=found.request_id,
        # An answer that tells no usage has unknown tokens, not none.
        **({} if usage is None else usage.counts()),
        cost=prices.price(model, batch.endpoint, usage, tier="batch"),
        full_price=prices.price(model, batch.endpoint, usage, tier="standard"),
    )


def _close(rt: Runtime, batch: BatchRow) -> None:
    """The batch's last step: the provider's files go, and it is DELIVERED."""
    if not rt.settings.keep_files:
        provider = rt.provider(batch.account)
        for file_id in (batch.input_file_id, batch.output_file_id, batch.error_file_id):
            if file_id:
                provider.delete_file(file_id)
    failpoints.reach("close.deleted")
    if rt.ledger.close_if_done(batch.id):
        failpoints.reach("close.closed")
        rt.buffer.set_summary(batch.id, state="DELIVERED")
        logger.info("Batch %s is delivered", batch.id)
