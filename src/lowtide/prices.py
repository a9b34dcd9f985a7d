"""What an answer cost, by set or published prices. What is not known is None, never zero."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from genai_prices import Usage as PricedUsage
from genai_prices import calc_price
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from lowtide.tokens import Usage

if TYPE_CHECKING:
    from lowtide.lane import Lane
    from lowtide.settings import SetPrice, Settings

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


Rate: TypeAlias = Callable[[Usage], float | None]
"""The price of an answer by its tokens, in US dollars; None when it is unknown."""


def price_of(
    settings: Settings,
    lane: Lane,
    usage: Usage | None,
    *,
    tier: Tier,
    model: str | None = None,
    at: float | None = None,
) -> float | None:
    """US dollars for the tokens of one answer; None when the price or the usage is unknown.

    Args:
        usage: Tokens; None when the answer did not tell.

    The others are those of `rate_of`.
    """
    if usage is None:
        return None
    return rate_of(settings, lane, tier=tier, model=model, at=at)(usage)


def rate_of(
    settings: Settings,
    lane: Lane,
    *,
    tier: Tier,
    model: str | None = None,
    at: float | None = None,
) -> Rate:
    """How answers are priced: by the settings, else as the provider publishes.

    Args:
        settings: For the prices that are set, and the account's provider.
        lane: Account, endpoint and the model that was asked for.
        tier: How the requests were processed.
        model: The model that answered; the lane's when None.
        at: When, seconds since the epoch; now when None.
    """
    for name in (lane.model, model):
        given = settings.prices.get(name or "")
        if given is not None:
            return partial(_by_setting, given, tier)
    profile = settings.profile(lane.account)
    if profile.prices is None:
        return _unknown
    return _published(
        profile.prices,
        model or lane.model,
        lane.endpoint,
        tier,
        _day(at),
        profile.batch_share.get(lane.endpoint),
    )


def _unknown(_: Usage) -> None:
    return None


def _by_setting(given: SetPrice, tier: Tier, usage: Usage) -> float | None:
    if usage.output_tokens and given.output is None:
        return None
    share = 1.0 if tier == "standard" else given.batch
    cached = given.input if given.cached is None else given.cached
    whole = (
        max(0, usage.input_tokens - usage.cached_tokens) * given.input
        + usage.cached_tokens * cached
        + usage.output_tokens * (given.output or 0.0)
    )
    return share * whole / _MILLION


def price(
    model: str,
    endpoint: str,
    usage: Usage | None,
    *,
    tier: Tier,
    at: float | None = None,
    provider: str = "openai",
    batch_share: float | None = None,
) -> float | None:
    """US dollars for the tokens of one answer, by the prices in genai-prices.

    Tools that are billed by call (web search, file search) are not in it.

    Args:
        model: Model name or dated snapshot.
        endpoint: Path of the API.
        usage: Tokens; None when the answer did not tell.
        tier: How the request was processed.
        at: When, seconds since the epoch; now when None.
        provider: The provider's id in genai-prices.
        batch_share: What a batch costs of the standard price where genai-prices has no batch
            price; None = unknown.

    Returns:
        None when the model, its price in that tier, or the usage is unknown.
    """
    if usage is None:
        return None
    return _published(provider, model, endpoint, tier, _day(at), batch_share)(usage)


def _day(at: float | None) -> int:
    """The day of a moment, now when None, counted from the epoch."""
    return int((time.time() if at is None else at) // _DAY)


def _published(
    provider: str, model: str, endpoint: str, tier: Tier, day: int, batch_share: float | None
) -> Rate:
    if endpoint not in _BY_TOKEN:
        return _unknown
    rate = _rate(provider, model, tier, day)
    if rate is not None:
        return rate
    if tier != "batch" or batch_share is None:
        return _unknown
    standard = _rate(provider, model, "standard", day)
    return _unknown if standard is None else lambda usage: standard(usage) * batch_share


@lru_cache(maxsize=1024)
def _rate(provider: str, model: str, tier: Tier, day: int) -> Callable[[Usage], float] | None:
    """How one answer is priced on a day, counted from the epoch."""
    moment = datetime.fromtimestamp((day + 0.5) * _DAY, UTC)
    try:
        info = calc_price(PricedUsage(), model, provider_id=provider).model
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
