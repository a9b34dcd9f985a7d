"""What a demo with a real provider is going to cost, before it spends anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lowtide.lane import Lane
from lowtide.prices import price_of
from lowtide.settings import Settings
from lowtide.tokens import Usage, estimate
from worker.demo.texts import Description

_ANSWER_TOKENS = 600  # a summary of some 60 words and the reasoning before it


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected use of the provider. Money in USD, None when a price is unknown."""

    requests: int
    input_tokens: int
    output_tokens: int
    batch: float | None
    standard: float | None


def estimate_all(texts: Sequence[Description], lane: Lane, settings: Settings) -> Estimate:
    """The estimate for one request per text, rather too high than too low.

    Args:
        texts: What is to be summarised.
        lane: The account, whose provider tells the prices, the endpoint and the model.
        settings: For the account and for prices that are set.
    """
    given = sum(estimate(len(text.text.encode())) for text in texts)
    usage = Usage(input_tokens=given, output_tokens=_ANSWER_TOKENS * len(texts))
    return Estimate(
        requests=len(texts),
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        batch=price_of(settings, lane, usage, tier="batch"),
        standard=price_of(settings, lane, usage, tier="standard"),
    )
