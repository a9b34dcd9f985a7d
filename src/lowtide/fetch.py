"""Fetch: what became of a batch is read, and every request that was sent is settled.

Answered requests and those that failed for good go into slices for `deliver`. Those that failed
for now, and those that the provider says nothing about, go into a new batch, in one transaction
of the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from celery.utils.log import get_logger

from lowtide import attempts, control, failpoints, limits, prices, quiet, results
from lowtide.decide import backoff, halves, next_poll
from lowtide.errors import ProviderUnavailable
from lowtide.leases import held
from lowtide.ledger import Attempt, BatchState
from lowtide.moving import move
from lowtide.outcomes import Answered, Failed, SliceWriter
from lowtide.pipeline import Next
from lowtide.providers.failures import PASSING_CODES, PAUSING_CODES
from lowtide.spool import spool_folder

if TYPE_CHECKING:
    from lowtide.ledger import BatchRow, Lease
    from lowtide.providers import BatchError, Provider
    from lowtide.runtime import Runtime

logger = get_logger(__name__)
_SLICE_TTL = 3600.0
_TOGETHER = 500
_FETCHABLE = (BatchState.ENDED, BatchState.FETCHED)
# Reasons of the provider for not having run a request at all within its window.
_NOT_RUN = frozenset({"expired", "cancelled"})
# Validation errors of these kinds are about the account, not about any line.
_ACCOUNTS = PAUSING_CODES | PASSING_CODES
# Statuses of a file that the provider does not have.
_GONE = frozenset({404, 410})


@dataclass(slots=True)
class Settling:
    """What is known so far of the lines of one batch; requests that share one go with it.

    Attributes:
        left: custom_ids of lines that nothing is known about yet.
        failed: custom_id → why it has no answer, as long as no other line holds one.
        again: custom_id → why it is to be sent again.
        exhausted: The same for those that were sent as often as they may be.
        odd: What was read and left aside, and how often.
        late: custom_id → cost of answers that were not waited for.
        missing: Files that the batch names and the provider does not have.
        has_run: Whether an answer was read: the provider ran the batch, however it ended.
    """

    rt: Runtime
    lease: Lease
    batch: BatchRow
    attempt: int
    left: set[str]
    writer: SliceWriter
    failed: dict[str, results.Rejected | results.Again] = field(default_factory=dict)
    again: dict[str, results.Again] = field(default_factory=dict)
    exhausted: dict[str, results.Again] = field(default_factory=dict)
    odd: Counter[str] = field(default_factory=Counter)
    late: dict[str, float | None] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    has_run: bool = False

    def about(self) -> dict[str, Any]:
        """Details that every error of this batch carries."""
        return {"lane": self.batch.lane, "batch": self.batch.provider_batch_id}

    def answer(self, answered: Answered) -> None:
        """The request has its answer."""
        self.has_run = True
        self.left.discard(answered.custom_id)
        self.failed.pop(answered.custom_id, None)
        self.writer.add(answered)

    def waits_for(self, custom_id: str) -> bool:
        """Whether an answer to the request is still of use."""
        return custom_id in self.left or custom_id in self.failed

    def fail(self, custom_id: str, error: str, message: str, details: Mapping[str, Any]) -> None:
        """The request failed for good."""
        self.left.discard(custom_id)
        known = {key: value for key, value in details.items() if value is not None}
        self.writer.add(Failed(custom_id, error, message, {**self.about(), **known}))

    def retry(self, custom_id: str, why: results.Again) -> None:
        """The request failed for now; at its last attempt for good."""
        self.left.discard(custom_id)
        last = self.attempt >= self.rt.settings.max_attempts
        (self.exhausted if last else self.again)[custom_id] = why

    def attempted(self, why: results.Again) -> Attempt:
        """This attempt, as it is remembered."""
        return Attempt(
            at=self.batch.ended_at or self.rt.clock.now(),
            batch_id=self.batch.id,
            provider_batch_id=self.batch.provider_batch_id,
            status=why.status,
            code=why.code or why.reason,
            message=why.message or None,
        )


def fetch(rt: Runtime, batch_id: str) -> Next | None:
    """Settles every request of a batch that ended.

    May run again from its start at any time: what was delivered or moved is no longer in the
    batch.

    Returns:
        The delivery of its slices, or the next look where there is nothing new to deliver; None
        when the batch is not there to be fetched.
    """
    known = rt.ledger.batch(batch_id)
    if known is None or known.state not in _FETCHABLE:
        return None  # nobody holds what is final: its timer has to go
    with held(rt, batch_id) as lease:
        batch = rt.ledger.batch(batch_id)
        if batch is None or batch.state not in _FETCHABLE:
            return None
        settings = rt.settings
        writer = SliceWriter(rt.slices, batch_id, most=settings.slice_requests, ttl=_SLICE_TTL)
        settling = Settling(
            rt, lease, batch, rt.ledger.attempt(batch_id), rt.ledger.names(batch_id), writer
        )
        _settle_all(settling)
        _exhaust(settling)
        writer.flush()
        rt.ledger.book_waste(batch_id, settling.late)
        _send_again(settling)
        failpoints.reach("fetch.settled")
        if settling.odd:
            logger.warning("Batch %s: lines left aside: %s", batch_id, dict(settling.odd))
        if batch.state == BatchState.ENDED:
            rt.ledger.move(lease, BatchState.FETCHED, release=True)
            failpoints.reach("fetch.moved")
        rt.buffer.set_summary(batch_id, state=BatchState.FETCHED)
        return _next(settling)


def _next(settling: Settling) -> Next:
    """Where requests are left and nothing new is, a file is away, or somebody else has them."""
    rt, batch = settling.rt, settling.batch
    if settling.writer.count or not rt.ledger.undelivered(batch.id):
        return Next("deliver", batch.id, slices=settling.writer.count)
    now, lease = rt.clock.now(), rt.settings.lease
    if not settling.missing:
        return Next("fetch", batch.id, at=now + lease)
    since = batch.ended_at or now
    at = next_poll(now, since, None, shortest=lease, longest=rt.settings.poll_max)
    return Next("fetch", batch.id, at=at)


def _settle_all(settling: Settling) -> None:
    """Files first, however the batch ended: an answer in them is paid."""
    ended = str(settling.batch.provider_status)
    _from_files(settling)
    if settling.missing and _may_come(settling):
        return
    for custom_id, why in settling.failed.items():
        _fail(settling, custom_id, why)
    if ended == "rejected":
        _rejected(settling)
    elif ended == "failed" and not settling.has_run:
        _failed_validation(settling)
    else:
        absent = "file_gone" if settling.missing else "missing"
        unsaid = results.Again(ended if ended in _NOT_RUN else absent, None, "")
        for custom_id in list(settling.left):
            settling.retry(custom_id, unsaid)


def _from_files(settling: Settling) -> None:
    """What the files say became of each request."""
    batch = settling.batch
    named = [file_id for file_id in (batch.output_file_id, batch.error_file_id) if file_id]
    if not named:
        return
    provider = settling.rt.provider(batch.account)
    with spool_folder(settling.rt) as folder:
        for file_id in named:
            path = folder / "results.jsonl"
            if not _downloaded(provider, file_id, path):
                settling.missing.append(file_id)
                continue
            failpoints.reach("fetch.downloaded")
            _read(settling, path)


def _downloaded(provider: Provider, file_id: str, path: Path) -> bool:
    """Downloads a file; False when the provider does not have it."""
    try:
        provider.download(file_id, path)
    except ProviderUnavailable as error:
        if error.details.get("status") not in _GONE:
            raise
        return False
    return True


def _may_come(settling: Settling) -> bool:
    """Whether files that are missing are waited for: to ask again may be to pay again."""
    rt, batch, files = settling.rt, settling.batch, " and ".join(settling.missing)
    now = rt.clock.now()
    if now - (batch.ended_at or now) < rt.settings.stuck_after:
        text = "Batch %s: the provider does not have its file %s; looking for it again"
        quiet.warn(logger, "provider", text, batch.id, files)
        return True
    logger.error(
        "Batch %s: its file %s is gone from the provider; the %d requests without an answer are "
        "sent again. Look for what deletes the account's files.",
        batch.id,
        files,
        len(settling.left) + len(settling.failed),
    )
    return False


def _read(settling: Settling, path: Path) -> None:
    for line in results.read_lines(path):
        seen = results.glance(line, settling.batch.endpoint)
        if seen is not None and settling.waits_for(seen.custom_id):
            settling.answer(seen)
            continue
        parsed = results.parse_line(line)
        if parsed is None:
            settling.odd["unreadable"] += 1
        elif not _settle(settling, parsed):
            settling.odd["unknown or repeated"] += 1
            _note_late(settling, parsed)


def _note_late(settling: Settling, line: results.Line) -> None:
    """An answer that nobody waits for any more is paid all the same."""
    if isinstance(line.outcome, results.Answered):
        settling.has_run = True
        batch, answered = settling.batch, line.outcome
        model = answered.body.get("model")
        settling.late[line.custom_id] = prices.price(
            model if isinstance(model, str) and model else batch.model,
            batch.endpoint,
            answered.usage,
            tier="batch",
        )


def _settle(settling: Settling, line: results.Line) -> bool:
    """Notes what a line tells; False where that is known of its request already."""
    name, outcome = line.custom_id, line.outcome
    if isinstance(outcome, results.Answered) and settling.waits_for(name):
        body = results.write_body(outcome.body)
        settling.answer(Answered(name, outcome.status_code, body, outcome.request_id))
    elif not isinstance(outcome, results.Answered) and name in settling.left:
        settling.left.discard(name)
        settling.failed[name] = outcome
    else:
        return False
    return True


def _fail(settling: Settling, custom_id: str, why: results.Rejected | results.Again) -> None:
    """The files hold no answer to a request, and say why."""
    if isinstance(why, results.Again):
        settling.retry(custom_id, why)
    else:
        told = {"code": why.code, "param": why.param, "status": why.status}
        settling.fail(custom_id, "RequestRejected", why.message, told)


def _failed_validation(settling: Settling) -> None:
    """The provider ran nothing: lines it names fail alone, the others are sent again."""
    batch = settling.batch
    remote = settling.rt.provider(batch.account).status(str(batch.provider_batch_id))
    errors = remote.errors
    named = _named(settling, errors)
    for custom_id in named.keys() & settling.left:
        error = named[custom_id]
        settling.fail(
            custom_id, "RequestRejected", error.message, {"code": error.code, "param": error.param}
        )
    rest = sorted(settling.left)
    if named:
        _move(settling, rest, "another line of its batch failed validation")
    elif refusal := next((error for error in errors if error.code in _ACCOUNTS), None):
        if refusal.code in PAUSING_CODES:
            control.suspend(settling.rt, batch.account, refusal.message)
        limits.learn(settling.rt, batch.account, batch.model, refusal.message)
        _move(settling, rest, refusal.message, settling.rt.settings.retry_delay)
    elif len(rest) == 1 and batch.requests <= settling.rt.ledger.undelivered(batch.id):
        first = errors[0] if errors else None
        code = first.code if first else None
        message = first.message if first else "The provider failed the batch without a reason."
        if _sent(settling) is None:
            # It was not the request; but whatever deletes files may do so each time.
            settling.retry(rest[0], results.Again("file_gone", code, message))
        else:
            settling.fail(rest[0], "BatchFailed", message, {"code": code})
    else:
        _bisect(settling, rest, errors)


def _named(settling: Settling, errors: Collection[BatchError]) -> dict[str, BatchError]:
    """custom_id → error for each error that names a line; lines count from 1.

    Which line is whose is read from the file that was sent: requests may have left the batch
    since, so the ledger cannot tell. These are in it, too: who is left is not to blame then.
    Without that file nobody is named, and the culprit is found by halving.
    """
    numbered = {
        error.line: error
        for error in errors
        if error.line is not None and error.code not in _ACCOUNTS
    }
    if not numbered:
        return {}
    names = _sent(settling, numbered) or {}
    return {name: numbered[number] for number, name in names.items()}


def _sent(settling: Settling, numbers: Collection[int] = ()) -> dict[int, str] | None:
    """Number → custom_id of some lines of the file that was sent; None when it is gone."""
    with spool_folder(settling.rt) as folder:
        path = folder / "sent.jsonl"
        provider = settling.rt.provider(settling.batch.account)
        if not _downloaded(provider, str(settling.batch.input_file_id), path):
            return None
        return {
            number: orjson.loads(line)["custom_id"]
            for number, line in enumerate(results.read_lines(path), start=1)
            if number in numbers
        }


def _bisect(settling: Settling, rest: list[str], errors: Collection[BatchError]) -> None:
    """No line is named: each half goes alone, until the culprit is by itself."""
    code = next((error.code for error in errors if error.code), "validation failed")
    for half in halves(rest):
        _move(settling, half, f"half of a batch that failed: {code}")


def _move(settling: Settling, custom_ids: Sequence[str], reason: str, wait: float = 0.0) -> None:
    """Sends requests again that the provider did not run: no attempt is counted."""
    settling.left.difference_update(custom_ids)
    move(settling.rt, settling.lease, settling.batch, custom_ids, reason=reason, wait=wait)


def _rejected(settling: Settling) -> None:
    """The provider refused to take the batch at all."""
    message = settling.batch.reason or "The provider refused the batch."
    for custom_id in list(settling.left):
        settling.fail(custom_id, "BatchFailed", message, {})


def _exhaust(settling: Settling) -> None:
    """Fails what was sent as often as it may be, with the list of all its attempts."""
    every = list(settling.exhausted)
    for start in range(0, len(every), _TOGETHER):
        ids = every[start : start + _TOGETHER]
        earlier = settling.rt.ledger.attempts(ids)
        for custom_id in ids:
            why = settling.exhausted[custom_id]
            made = [*earlier.get(custom_id, []), settling.attempted(why)]
            error = "RequestExpired" if why.reason in _NOT_RUN else "AttemptsExhausted"
            message = f"The request was sent {settling.attempt} times without an answer"
            details = {"code": why.reason, "status": why.status, "attempts": attempts.told(made)}
            settling.fail(custom_id, error, f"{message}: {attempts.line(made)}.", details)


def _send_again(settling: Settling) -> None:
    """Moves what failed for now into a new batch, to be sent after a wait."""
    if not settling.again:
        return
    rt = settling.rt
    reasons = Counter(why.reason for why in settling.again.values())
    reason = ", ".join(f"{code} ({count})" for code, count in reasons.most_common(3))
    new_id = move(
        rt,
        settling.lease,
        settling.batch,
        list(settling.again),
        reason=reason,
        wait=backoff(settling.attempt, rt.settings.retry_delay),
        failed={name: settling.attempted(why) for name, why in settling.again.items()},
    )
    failpoints.reach("fetch.requeued")
    if new_id is not None:
        logger.info(
            "Batch %s: %d requests go again in batch %s: %s",
            settling.batch.id,
            len(settling.again),
            new_id,
            reason,
        )
