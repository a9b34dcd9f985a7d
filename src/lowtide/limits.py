"""Limits of a provider account: enqueued tokens and creations, shared by all replicas.

How many tokens an account may have enqueued for a model is set, or learned from the words of the
provider's refusal. What counts against it is read from the ledger, so nothing has to be counted
up and down, and nothing can be counted wrong.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lowtide import keys, turns

if TYPE_CHECKING:
    from lowtide.ledger import BatchRow
    from lowtide.runtime import Runtime

_TOLD = re.compile(r"[Ll]imit:\s*([\d,._ ]*\d)\s*enqueued tokens")
_HOUR = 3600
_RATIO_TTL = 60.0
# An estimate is an estimate: this share of the limit stays free.
_RESERVE = 0.1
_ratios: dict[str, tuple[float, float]] = {}


@dataclass(frozen=True, slots=True)
class Wait:
    """A batch has to wait.

    Attributes:
        reason: Why, for people.
        seconds: After which time it is worth looking again; sooner when room returns.
        queue: For what it waits, where those that wait for the same take turns.
    """

    reason: str
    seconds: float
    queue: str | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """A batch is larger than the whole limit: it is to be cut into parts of at most `tokens`.

    Attributes:
        tokens: Of our estimates, not of the provider's counts.
    """

    tokens: int


def check(rt: Runtime, batch: BatchRow) -> Wait | Split | None:
    """Whether a batch may be created now as far as limits go; None when it may."""
    return _enqueued(rt, batch) or _creations(rt, batch)


def learn(rt: Runtime, account: str, model: str, message: str) -> int | None:
    """Notes the limit that a provider's refusal names.

    Args:
        message: The provider's words, such as "… Limit: 2,000,000 enqueued tokens. …".

    Returns:
        The limit in tokens; None when the words name none.
    """
    told = _TOLD.search(message)
    if told is None:
        return None
    limit = int(re.sub(r"\D", "", told[1]))
    rt.redis.hset(keys.limits(rt.settings.namespace), _field(account, model), limit)
    return limit


def limit_of(rt: Runtime, batch: BatchRow) -> int | None:
    """Tokens that may be enqueued for the batch's model: as set, else as learned, else None."""
    given = rt.settings.thresholds(batch.to_lane()).enqueued_tokens
    if given is not None:
        return given
    name = keys.limits(rt.settings.namespace)
    learned: Any = rt.redis.hget(name, _field(batch.account, batch.model))
    return None if learned is None else int(learned)


def count_creation(rt: Runtime, account: str) -> None:
    """Counts one creation of this hour."""
    key = _hour_key(rt, account)
    pipe = rt.redis.pipeline(transaction=True)
    pipe.incr(key)
    pipe.expire(key, 2 * _HOUR)
    pipe.execute()


def room_returned(rt: Runtime, account: str, model: str) -> None:
    """A batch of the model ended: who waited for room is looked at now, the next one first."""
    turns.call_next(rt, turns.tokens(account, model))


def submitted(rt: Runtime, account: str, model: str) -> None:
    """A batch was sent: who is next after it is looked at now, should there be more room."""
    for queue in (turns.tokens(account, model), turns.creations(account)):
        turns.call_next(rt, queue)


def _enqueued(rt: Runtime, batch: BatchRow) -> Wait | Split | None:
    limit = limit_of(rt, batch)
    if limit is None:
        return None
    ratio = ratio_of(rt, batch.model)
    usable = limit * (1 - _RESERVE)
    if batch.tokens * ratio > usable and batch.requests > 1:
        return Split(max(1, int(usable / ratio)))
    queue = turns.tokens(batch.account, batch.model)
    need = batch.tokens * ratio
    taken = rt.ledger.enqueued(batch.account, batch.model) * ratio
    if taken and taken + need > usable:
        reason = (
            f"{batch.model} has {int(taken):,} of {limit:,} tokens enqueued; this batch needs "
            f"{int(need):,}."
        )
    elif not turns.is_next(rt, queue, batch):
        reason = "Other batches of the model wait for room, and are next."
    else:
        return None
    return Wait(reason, rt.settings.poll_max, queue)


def _creations(rt: Runtime, batch: BatchRow) -> Wait | None:
    queue = turns.creations(batch.account)
    told: Any = rt.redis.get(_hour_key(rt, batch.account))
    made = int(told or 0)
    left = _HOUR - rt.clock.now() % _HOUR
    if made >= rt.settings.creations_per_hour:
        reason = f"Account {batch.account} created {made:,} batches this hour, as many as it may."
        return Wait(reason, left, queue)
    if not turns.is_next(rt, queue, batch):
        reason = f"Other batches of account {batch.account} wait to be created, and are next."
        return Wait(reason, min(left, rt.settings.poll_max), queue)
    return None


def ratio_of(rt: Runtime, model: str) -> float:
    """Real tokens for each estimated one, as the model's last batches showed."""
    known = _ratios.get(model)
    now = time.monotonic()
    if known is None or now - known[1] > _RATIO_TTL:
        known = _ratios[model] = (rt.ledger.token_ratio(model) or 1.0, now)
    return known[0]


def _field(account: str, model: str) -> str:
    return f"{account}:{model}"


def _hour_key(rt: Runtime, account: str) -> str:
    return keys.created(rt.settings.namespace, account, int(rt.clock.now() // _HOUR))
