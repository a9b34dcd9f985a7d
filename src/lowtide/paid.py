"""Answers that a faster service gave: paid at once, and kept until their tasks have them.

Neither a result backend that is away, nor a replica that dies or cannot end the task, has the
same asked, and paid, again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import msgspec
from celery.utils.log import get_logger

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
        tier: Who answered.
        cost: USD; None when it is unknown.
    """

    answer: Answered
    tier: Tier
    cost: float | None


def of(rt: Runtime, lane: Lane, answer: Answered, tier: Tier) -> Paid:
    """An answer with its price."""
    body = results.read_body(answer.body) or {}
    model = body.get("model")
    usage = Usage.of(body.get("usage"))
    name = model if isinstance(model, str) else None
    return Paid(answer, tier, prices.price_of(rt.settings, lane, usage, tier=tier, model=name))


def keep(rt: Runtime, batch: BatchRow, paid: Sequence[Paid]) -> None:
    """Keeps answers until their tasks have them; a ledger that is away keeps none."""
    blobs = {each.answer.custom_id: _encoder.encode(each) for each in paid}
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
