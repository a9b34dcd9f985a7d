"""What a demo with a real provider is going to cost, before it spends anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lowtide.prices import price
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


def estimate_all(texts: Sequence[Description], model: str, endpoint: str) -> Estimate:
    """The estimate for one request per text, rather too high than too low."""
    given = sum(estimate(len(text.text.encode())) for text in texts)
    usage = Usage(input_tokens=given, output_tokens=_ANSWER_TOKENS * len(texts))
    return Estimate(
        requests=len(texts),
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        batch=price(model, endpoint, usage, tier="batch"),
        standard=price(model, endpoint, usage, tier="standard"),
    )
