"""Answers that a faster service gave: paid at once, and kept until their tasks have them.

Neither a result backend that is away, nor a replica that dies or cannot end the task, has the
same asked, and paid, again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from celery.utils.log import get_logger
from msgspec.structs import replace

from lowtide import prices, quiet, results
from lowtide.errors import LedgerUnavailable
from lowtide.finishing import Tier
from lowtide.outcomes import Answered
from lowtide.tokens import Usage

if TYPE_CHECKING:
    from lowtide.lane import Lane
    from lowtide.ledger import BatchRow
    from lowtide.runtime import Runtime

logger = get_logger(__name__)


class Paid(msgspec.Struct, frozen=True, array_like=True):
    """An answer that is paid.

    Attributes:
        answer: What was answered, under the request's name.
        tier: Who answered; "shared" when another request that got the same answer pays.
        cost: USD; None when it is unknown.
    """

    answer: Answered
    tier: Tier
    cost: float | None


def among(
    rt: Runtime, lane: Lane, answer: Answered, tier: prices.Tier, names: Sequence[str]
) -> dict[str, Paid]:
    """custom_id → the answer for each of the requests `names`, the first of which pays it."""
    body = results.read_body(answer.body) or {}
    model = body.get("model")
    usage = Usage.of(body.get("usage"))
    known = model if isinstance(model, str) else None
    cost = prices.price_of(rt.settings, lane, usage, tier=tier, model=known)
    found = {name: Paid(replace(answer, custom_id=name), "shared", 0.0) for name in names}
    found[names[0]] = Paid(replace(answer, custom_id=names[0]), tier, cost)
    return found


def keep(rt: Runtime, batch: BatchRow, answers: Mapping[str, Paid]) -> None:
    """Keeps answers until their tasks have them; a ledger that is away keeps none."""
    blobs = {name: _encoder.encode(each) for name, each in answers.items()}
    try:
        rt.ledger.keep_paid(batch.id, blobs)
    except LedgerUnavailable as error:
        quiet.warn(logger, "ledger", "Paid answers of batch %s are not kept: %s", batch.id, error)


def kept(rt: Runtime, custom_ids: Collection[str]) -> dict[str, Paid]:
    """custom_id → answer of those of the requests whose answer is paid already."""
    return {name: _decoder.decode(blob) for name, blob in rt.ledger.paid(custom_ids).items()}


def forget(rt: Runtime) -> None:
    """Lets answers go whose requests have an outcome; what was paid for nothing is booked."""
    over = rt.ledger.paid_and_over()
    rt.ledger.forget_paid({name: _decoder.decode(blob).cost for name, blob in over.items()})


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Paid)
