"""What an answer cost, by the published prices. What is not known is None, never zero."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

from genai_prices import Usage as PricedUsage
from genai_prices import calc_price
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from lowtide.tokens import Usage

Tier = Literal["batch", "flex", "standard"]

_CONTEXT: dict[str, dict[str, str]] = {
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
}
# Elsewhere images or seconds are paid for, which a count of tokens does not tell.
_BY_TOKEN = frozenset(
    {"/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions"}
)
_DAY = 86_400
_MILLION = 1_000_000


def price(
    model: str, endpoint: str, usage: Usage | None, *, tier: Tier, at: float | None = None
) -> float | None:
    """US dollars for the tokens of one answer, by OpenAI's prices in genai-prices.

    Tools that are billed by call (web search, file search) are not in it.

    Args:
        model: Model name or dated snapshot.
        endpoint: Path of the API.
        usage: Tokens; None when the answer did not tell.
        tier: How the request was processed.
        at: When, seconds since the epoch; now when None.

    Returns:
        None when the model, its price in that tier, or the usage is unknown.
    """
    if usage is None or endpoint not in _BY_TOKEN:
        return None
    rate = _rate(model, tier, int((time.time() if at is None else at) // _DAY))
    return None if rate is None else rate(usage)


@lru_cache(maxsize=1024)
def _rate(model: str, tier: Tier, day: int) -> Callable[[Usage], float] | None:
    """How one answer is priced on a day, counted from the epoch."""
    moment = datetime.fromtimestamp((day + 0.5) * _DAY, UTC)
    try:
        info = calc_price(PricedUsage(), model, provider_id="openai").model
    except LookupError:
        return None
    prices = _prices(info, tier, moment)
    if prices is None or prices.input_mtok is None:
        return None
    given, written = prices.input_mtok, prices.output_mtok
    cached = given if prices.cache_read_mtok is None else prices.cache_read_mtok
    flat: list[float] = []
    for each in (given, cached, written or 0):
        if isinstance(each, TieredPrices):
            return lambda usage: _by_table(prices, usage)
        flat.append(float(each) / _MILLION)
    return lambda usage: (
        max(0, usage.input_tokens - usage.cached_tokens) * flat[0]
        + usage.cached_tokens * flat[1]
        + usage.output_tokens * flat[2]
    )


def _prices(info: ModelInfo, tier: Tier, moment: datetime) -> ModelPrice | None:
    """The prices of a model in a tier.

    genai-prices gives the standard price where it knows none for the tier: for embeddings, for
    all of a model before the tier's first day, and for cached tokens alone. So the tier's own
    prices are looked for, and cached tokens cost what other input costs where they have none.
    """
    standard = info.get_prices(moment)
    context = _CONTEXT.get(tier)
    if context is None:
        return standard
    for variant in info.price_variants or ():
        active = variant.constraint is None or variant.constraint.active(moment)
        if variant.when == context and active and variant.prices.input_mtok is not None:
            if standard.output_mtok is not None and variant.prices.output_mtok is None:
                return None
            return variant.prices
    return None


def _by_table(prices: ModelPrice, usage: Usage) -> float:
    """For prices that change with the length of the input."""
    counted = PricedUsage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
    )
    return float(prices.calc_price(counted)["total_price"])
