"""Finish: claimed requests get their outcomes, whoever gave them: a batch, a faster service, a
revoke. Their tasks are resumed as Celery would end them, then the ledger notes what became of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from celery.utils.log import get_logger
from msgspec.structs import replace
from redis.exceptions import RedisError

from lowtide import answers, failpoints, prices, quiet, results, telling, tracing
from lowtide.errors import AttemptsExhausted, LedgerUnavailable, LowtideError
from lowtide.ledger import NewMessage, Outcome, RequestState
from lowtide.outcomes import Answered, Failed
from lowtide.request import Request, unpack
from lowtide.resume import Resumed, Resumption, resume
from lowtide.tokens import Usage

if TYPE_CHECKING:
    from lowtide.leases import Claim
    from lowtide.ledger import BatchRow
    from lowtide.runtime import Runtime

logger = get_logger(__name__)

Tier: TypeAlias = Literal["batch", "flex", "standard", "shared"]

_STATES = {
    "SUCCESS": RequestState.DELIVERED,
    "SKIPPED": RequestState.DELIVERED,
    "RETRY": RequestState.DELIVERED,
    "IGNORED": RequestState.DELIVERED,
    "FAILURE": RequestState.FAILED,
    "REVOKED": RequestState.REVOKED,
    "CONTINUED": RequestState.CONTINUED,
}
# Who does not take one request takes no other.
_AWAY = (RedisError, OSError, LedgerUnavailable)
# The task is over: Redis need not remember where its requests are.
_OVER = frozenset({"SUCCESS", "FAILURE", "REVOKED", "SKIPPED"})


def finish(
    rt: Runtime,
    batch: BatchRow,
    claim: Claim,
    *,
    found: Mapping[str, Answered | Failed],
    hostname: str,
    tier: Tier = "batch",
    revoked: Collection[str] = (),
) -> int:
    """Gives outcomes to the tasks of claimed requests, and notes them.

    Args:
        batch: The batch that the requests are in.
        claim: The requests, claimed.
        found: custom_id → outcome, for each of them.
        hostname: Name of this worker, for Celery's events.
        tier: Who answered; "shared" when others pay for the same answers.
        revoked: Ids of tasks that are revoked.

    Returns:
        How many requests have their outcome now.
    """
    lane = batch.to_lane()
    bodies: dict[str, dict[str, Any]] = {}
    items = []
    for request in [unpack(row.custom_id, lane, row.blob) for row in claim.rows]:
        outcome = found[request.custom_id]
        body = results.read_body(outcome.body) if isinstance(outcome, Answered) else None
        if body is not None:
            bodies[request.custom_id] = body
            items.append(Resumption(request, (lane.endpoint, body)))
        else:
            error = _error(outcome).about(task=request.task, task_id=request.task_id)
            items.append(Resumption(request, error))
    resumed = resume(rt.app, items, hostname, revoked=revoked, may_write=claim.runs)
    requests = {item.custom_id: item.request for item in items}
    # At once: who has the result may call again.
    answers.keep(rt, requests, resumed, bodies)
    failpoints.reach("deliver.resumed")
    # The next request of a generator is in its buffer before the answered one counts as done.
    resumed = _continued(rt, resumed)
    failpoints.reach("deliver.continued")

    @cache
    def rate(model: str | None, of: prices.Tier) -> prices.Rate:
        return prices.rate_of(rt.settings, lane, tier=of, model=model)

    settled = [
        _outcome(each, found[each.custom_id], bodies.get(each.custom_id), rate, tier)
        for each in resumed
        if each.state in _STATES
    ]
    sharing = {each.custom_id for each in items if each.request.share is not None}
    told = _told(rt, batch, resumed, requests)
    due = telling.arm(rt, told)
    rt.ledger.settle(claim.token, settled, sharing, told)
    tracing.finished(batch, requests, settled, rt.clock.now())
    failpoints.reach("deliver.settled")
    telling.kick(rt, due)
    _leave(rt, batch, claim.token, resumed)
    over = [requests[each.custom_id].task_id for each in resumed if each.state in _OVER]
    rt.buffer.forget(over)
    failpoints.reach("deliver.forgotten")
    return len(settled)


def _continued(rt: Runtime, resumed: Sequence[Resumed]) -> list[Resumed]:
    """Puts next requests into their buffers; a task whose request is kept out is told again.

    The others have their outcome: were they told again, those whose result does not say so, as of
    a task that replaced itself, would be run again.
    """
    out = _kept_out(rt, [each.next for each in resumed if each.next is not None])
    return [
        replace(each, state="AGAIN", next=None)
        if each.next and each.next.custom_id in out
        else each
        for each in resumed
    ]


def _kept_out(rt: Runtime, following: Sequence[Request]) -> set[str]:
    """The custom_ids of requests that are not in their buffers now."""
    try:
        rt.accept(following)
    except Exception as error:
        if len(following) > 1 and not isinstance(error, _AWAY):
            return set().union(*(_kept_out(rt, [each]) for each in following))
        text = "%d next requests could not be buffered, their tasks are told again: %s"
        quiet.warn(logger, "redis", text, len(following), error)
        return {each.custom_id for each in following}
    return set()


def _told(
    rt: Runtime, batch: BatchRow, resumed: Sequence[Resumed], requests: Mapping[str, Request]
) -> list[NewMessage]:
    """What others than the callers are to be told of tasks that ended here."""
    return [
        message
        for each in resumed
        if each.ended is not None and each.state in _STATES
        for message in telling.entries(
            rt,
            each.ended,
            each.custom_id,
            batch=batch,
            tenant=requests[each.custom_id].tenant,
        )
    ]


def _error(outcome: Answered | Failed) -> LowtideError:
    if isinstance(outcome, Failed):
        return outcome.exception()
    return AttemptsExhausted(
        "The provider's answer cannot be read.", {"status": outcome.status_code}
    )


def _leave(rt: Runtime, batch: BatchRow, token: str, resumed: Sequence[Resumed]) -> None:
    """Gives back the claims of what could not be finished here, for another replica to try."""
    later = [each.custom_id for each in resumed if each.state not in _STATES]
    if later:
        rt.ledger.unclaim(later, token)
        logger.warning("Batch %s: %d answers are delivered later", batch.id, len(later))


def _outcome(
    resumed: Resumed,
    found: Answered | Failed,
    body: dict[str, Any] | None,
    rate: Callable[[str | None, prices.Tier], prices.Rate],
    tier: Tier,
) -> Outcome:
    state = _STATES[resumed.state]
    if isinstance(found, Failed) or body is None:
        details = found.details if isinstance(found, Failed) else {}
        return Outcome(
            custom_id=resumed.custom_id,
            state=state,
            status_code=details.get("status"),
            error_code=details.get("code"),
            error_message=found.message if isinstance(found, Failed) else None,
        )
    usage, model = Usage.of(body.get("usage")), body.get("model")
    known: dict[str, Any] = {}
    if tier == "shared":
        known = {"cost": 0.0, "full_price": 0.0}
    # An answer that tells no usage has unknown tokens, not none.
    elif usage is not None:
        name = model if isinstance(model, str) else None
        costs = {"cost": rate(name, tier)(usage), "full_price": rate(name, "standard")(usage)}
        known = usage.counts() | costs
    return Outcome(
        custom_id=resumed.custom_id,
        state=state,
        status_code=found.status_code,
        provider_request_id=found.request_id,
        tier=tier,
        **known,
    )
