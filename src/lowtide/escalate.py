"""Escalate: what its batch cannot answer in time is asked of a faster service.

The flex tier comes first, at batch price, then the standard one. The first answer wins: what the
batch says later about such a request is paid and booked as wasted, and changes nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
from celery.utils.log import get_logger
from msgspec import structs

from lowtide import attempts, finality, paid, prices, quiet, results, spending
from lowtide.errors import (
    LedgerUnavailable,
    LowtideError,
    ProviderError,
    RequestRejected,
    SettingsError,
)
from lowtide.finishing import finish
from lowtide.leases import Claim, claimed
from lowtide.outcomes import Answered, Failed
from lowtide.pipeline import Next
from lowtide.request import unpack

if TYPE_CHECKING:
    from lowtide.ledger import BatchRow, ClaimedRow
    from lowtide.paid import Paid
    from lowtide.request import Request
    from lowtide.runtime import Runtime

logger = get_logger(__name__)
_DAY = 86_400.0
# Below this flex, which is slower, is not worth a try.
_LEAST_FOR_FLEX = 30.0
_FLEX_SHARE = 0.6
_ROUNDS = 4


def escalate(rt: Runtime, _scope: str, hostname: str) -> Next | None:
    """One pass: asks a faster service for the requests whose time has come.

    One replica passes at a time, so that the concurrency limit holds for all of them. Requests of
    tasks that this worker does not know are left for one that does: it could not end them.

    Returns:
        The next pass, None while no request has a deadline.
    """
    limit = rt.settings.escalate_concurrency * _ROUNDS
    late = rt.ledger.late(rt.clock.now(), limit, rt.app.tasks.keys())
    for batch_id, custom_ids in late.items():
        try:
            _escalate_batch(rt, batch_id, custom_ids, hostname)
        except LedgerUnavailable:
            raise
        except Exception as error:
            logger.warning("Batch %s: its deadlines are looked after again: %r", batch_id, error)
    paid.forget(rt)
    at = rt.ledger.next_escalation()
    if at is None:
        return None
    if not late and at <= rt.clock.now() - rt.settings.lease:
        _tell_unknown(rt)
    # What somebody else has claimed stays due: a breath between passes.
    return Next("escalate", "all", at=max(at, rt.clock.now() + rt.settings.tick))


def _tell_unknown(rt: Runtime) -> None:
    """Says whose calls stay behind for longer than another worker would need to take them."""
    overdue = rt.ledger.late_tasks(rt.clock.now() - rt.settings.lease)
    unknown = sorted(overdue - rt.app.tasks.keys())
    if unknown:
        quiet.warn(
            logger,
            "task",
            "The deadline of calls of %s is near, but this worker does not know the task; they are "
            "left for one that does. Import its module here (`include=`), or start such a worker.",
            ", ".join(unknown),
        )


def _escalate_batch(rt: Runtime, batch_id: str, custom_ids: Sequence[str], hostname: str) -> None:
    batch = rt.ledger.batch(batch_id)
    if batch is None:
        return
    lane = batch.to_lane()
    with claimed(rt, batch.id, custom_ids) as claim:
        # What does not end now has its turn after all others, so that it keeps none from theirs.
        again = rt.clock.now() + rt.settings.retry_delay
        rt.ledger.postpone([row.custom_id for row in claim.rows], again)
        unpaid = _give_paid(rt, batch, claim, hostname)
        requests = {row.custom_id: unpack(row.custom_id, lane, row.blob) for row in unpaid.rows}
        over = [row for row in unpaid.rows if _is_over(rt, requests[row.custom_id])]
        with _apart(rt, batch, replace(claim, rows=over)) as ours:
            _give_up(rt, batch, ours, hostname)
        in_time = replace(claim, rows=[row for row in unpaid.rows if row not in over])
        affordable = _affordable(rt, batch, in_time, requests)
        for row in in_time.rows:
            if row not in affordable.rows:
                _put_off(rt, claim.token, row.custom_id, requests[row.custom_id].deadline)
        with _apart(rt, batch, affordable) as ours:
            open_ = _without_result(rt, batch, ours, requests, hostname)
            _ask_all(rt, batch, open_, requests=requests, hostname=hostname)
    if batch.state == "SUBMITTED" and rt.ledger.undelivered(batch.id) == 0:
        rt.provider(batch.account).cancel(str(batch.provider_batch_id))


@contextmanager
def _apart(rt: Runtime, batch: BatchRow, claim: Claim) -> Iterator[Claim]:
    """What fails in it is tried again by a later pass, and keeps no others from their end."""
    try:
        yield claim
    except Exception as error:
        logger.warning(
            "Batch %s: %d calls near their deadline are tried again: %r",
            batch.id,
            len(claim.rows),
            error,
        )
        with suppress(LedgerUnavailable):
            rt.ledger.unclaim([row.custom_id for row in claim.rows], claim.token)


def _give_paid(rt: Runtime, batch: BatchRow, claim: Claim, hostname: str) -> Claim:
    """Gives tasks what was paid for before; the claim of the others is left."""
    kept = paid.kept(rt, [row.custom_id for row in claim.rows])
    _give(rt, batch, claim, kept, hostname)
    return replace(claim, rows=[row for row in claim.rows if row.custom_id not in kept])


def _give(
    rt: Runtime, batch: BatchRow, claim: Claim, answers: Mapping[str, Paid], hostname: str
) -> None:
    """Gives paid answers to those of the claimed requests that have one."""
    for row in claim.rows:
        if (known := answers.get(row.custom_id)) is not None:
            with _apart(rt, batch, replace(claim, rows=[row])) as ours:
                found = {row.custom_id: known.answer}
                finish(rt, batch, ours, found=found, hostname=hostname, tier=known.tier)


def _without_result(
    rt: Runtime, batch: BatchRow, claim: Claim, requests: dict[str, Request], hostname: str
) -> Claim:
    """Those requests of a claim whose tasks have no final result yet; the others are done with.

    Raises:
        Exception: The result backend does not answer: it could not take a paid answer either.
    """
    tasks = {row.custom_id: requests[row.custom_id] for row in claim.rows}
    stored = finality.stored((rt.app.tasks[each.task], each.task_id) for each in tasks.values())
    done = [row for row in claim.rows if tasks[row.custom_id].task_id in stored]
    if done:
        message = "The task had its final result already."
        found = {row.custom_id: Failed(row.custom_id, "LowtideError", message, {}) for row in done}
        finish(rt, batch, replace(claim, rows=done), found=found, hostname=hostname)
    return replace(claim, rows=[row for row in claim.rows if row not in done])


def _put_off(rt: Runtime, token: str, custom_id: str, at: float | None) -> None:
    rt.ledger.unclaim([custom_id], token)
    rt.ledger.postpone([custom_id], at)


def _is_over(rt: Runtime, request: Request) -> bool:
    deadline = request.deadline or rt.clock.now()
    return deadline <= rt.clock.now() or not rt.settings.escalate


def _affordable(rt: Runtime, batch: BatchRow, claim: Claim, requests: dict[str, Request]) -> Claim:
    """Those requests of a claim that no cap keeps from a faster service."""
    if not claim.rows or not _may_spend(rt):
        return replace(claim, rows=[])
    tasks = {requests[row.custom_id].task for row in claim.rows}
    full = spending.exhausted(rt, batch.to_lane(), tasks)
    for task, reason in full.items():
        logger.warning("Calls of %s are not escalated: %s", task, reason)
    return replace(
        claim, rows=[row for row in claim.rows if requests[row.custom_id].task not in full]
    )


def _may_spend(rt: Runtime) -> bool:
    cap = rt.settings.escalate_per_day
    if cap is None:
        return True
    spent = rt.ledger.spent_faster(rt.clock.now() // _DAY * _DAY)
    if spent >= cap:
        logger.warning("Escalation stops for today: $%.2f of $%.2f are spent", spent, cap)
    return spent < cap


def _give_up(rt: Runtime, batch: BatchRow, claim: Claim, hostname: str) -> None:
    """The deadline passed without an answer."""
    if not claim.rows:
        return
    details = {"lane": batch.lane, "batch": batch.provider_batch_id}
    message = "The call's deadline passed before its batch was answered."
    earlier = rt.ledger.attempts([row.custom_id for row in claim.rows])
    failed = {
        row.custom_id: Failed(
            row.custom_id,
            "DeadlineExceeded",
            message,
            {**details, "attempts": attempts.told(earlier.get(row.custom_id, []))},
        )
        for row in claim.rows
    }
    finish(rt, batch, claim, found=failed, hostname=hostname)


def _ask_all(
    rt: Runtime, batch: BatchRow, claim: Claim, *, requests: dict[str, Request], hostname: str
) -> None:
    """Asks for all claimed requests, some at a time; each is finished when it is answered.

    Those that share a line are asked for once.
    """
    if not claim.rows:
        return
    logger.info("Batch %s: %d calls are escalated", batch.id, len(claim.rows))
    lines: dict[str, list[ClaimedRow]] = defaultdict(list)
    for row in claim.rows:
        lines[requests[row.custom_id].share or row.custom_id].append(row)
    with ThreadPoolExecutor(rt.settings.escalate_concurrency) as pool:
        asked = []
        for rows in lines.values():
            those = [requests[row.custom_id] for row in rows]
            first = min(those, key=lambda each: each.deadline or math.inf)
            asked.append((replace(claim, rows=rows), those, pool.submit(_ask, rt, claim, first)))
        for ours, those, future in asked:
            with _apart(rt, batch, ours):
                tier, outcome = future.result()
                _take(rt, batch, ours, tier, outcome, requests=those, hostname=hostname)


def _take(
    rt: Runtime,
    batch: BatchRow,
    claim: Claim,
    tier: prices.Tier,
    outcome: Answered | Failed | None,
    *,
    requests: Sequence[Request],
    hostname: str,
) -> None:
    """Gives the answer to those that share it; without one they are put off."""
    names = [request.custom_id for request in requests]
    if outcome is None:
        again = rt.clock.now() + rt.settings.retry_delay
        for request in requests:
            _put_off(rt, claim.token, request.custom_id, min(again, request.deadline or again))
    elif isinstance(outcome, Failed):
        found = {name: structs.replace(outcome, custom_id=name) for name in names}
        finish(rt, batch, claim, found=found, hostname=hostname, tier=tier)
    else:
        answers = paid.among(rt, batch.to_lane(), outcome, tier, names)
        paid.keep(rt, batch, answers)
        _give(rt, batch, claim, answers, hostname)


def _ask(
    rt: Runtime, claim: Claim, request: Request
) -> tuple[prices.Tier, Answered | Failed | None]:
    """Flex, then standard; None when neither answered for a passing reason.

    Nothing is asked once the claim ran out: another replica may ask.
    """
    if not claim.runs():
        return "standard", None
    body = orjson.loads(request.body)
    left = (request.deadline or rt.clock.now()) - rt.clock.now()
    if rt.settings.flex and left * _FLEX_SHARE >= _LEAST_FOR_FLEX:
        found = _run(rt, request, {**body, "service_tier": "flex"}, left * _FLEX_SHARE)
        if isinstance(found, Answered):
            return "flex", found
    left = (request.deadline or rt.clock.now()) - rt.clock.now()
    return "standard", _run(rt, request, body, max(left, _LEAST_FOR_FLEX))


def _run(
    rt: Runtime, request: Request, body: dict[str, Any], timeout: float
) -> Answered | Failed | None:
    try:
        provider = rt.provider(request.lane.account)
        answer = provider.run(request.lane.endpoint, body, timeout=timeout)
    except RequestRejected as error:
        return Failed(request.custom_id, "RequestRejected", error.message, error.details)
    except (ProviderError, SettingsError) as error:
        # An account that is not set here may be set where its batch is followed.
        logger.warning("Escalated call %s: %s", request.custom_id, error)
        return None
    except LowtideError as error:
        return Failed(request.custom_id, type(error).__name__, error.message, error.details)
    return Answered(request.custom_id, 200, results.write_body(answer), None)
