"""Prices: by tier, and unknown where nothing is known."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from genai_prices import Usage as PricedUsage
from genai_prices import calc_price

from lowtide.prices import price
from lowtide.tokens import Usage

MILLION = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
NOW = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
CHAT = "/v1/chat/completions"


def of(
    model: str,
    tier: Any = "batch",
    usage: Usage | None = MILLION,
    endpoint: str = CHAT,
    at: float = NOW,
) -> float | None:
    return price(model, endpoint, usage, tier=tier, at=at)


@pytest.mark.parametrize(
    "model", ["gpt-5-mini", "gpt-5-mini-2025-08-07", "gpt-5", "gpt-4o-mini", "gpt-4.1"]
)
def test_a_batch_is_half_the_standard_price(model: str):
    batch, standard = of(model), of(model, "standard")

    assert standard
    assert batch == pytest.approx(standard / 2)


def test_flex_costs_what_a_batch_costs_where_there_is_flex():
    assert of("gpt-5-mini", "flex") == of("gpt-5-mini", "batch")
    assert of("gpt-4o-mini", "flex") is None


@pytest.mark.parametrize("tier", ["batch", "standard", "flex"])
def test_cached_and_long_inputs_are_priced_as_genai_prices_does(tier: Any):
    context = {"batch": {"processing": "batch"}, "flex": {"service_tier": "flex"}}.get(tier)
    for model in ("gpt-5-mini", "gpt-5", "gpt-5.4"):
        for usage in (Usage(1_000, 300, 50), Usage(900_000, 100, 9)):
            given = PricedUsage(
                input_tokens=usage.input_tokens,
                cache_read_tokens=usage.cached_tokens,
                output_tokens=usage.output_tokens,
            )
            theirs = calc_price(
                given, model, provider_id="openai", price_context=context,
                genai_request_timestamp=datetime.fromtimestamp(NOW, UTC),
            )  # fmt: skip
            assert of(model, tier, usage) == pytest.approx(float(theirs.total_price)), model


def test_a_batch_without_a_price_for_cached_tokens_gives_no_discount_for_them():
    half_cached = Usage(input_tokens=1_000_000, cached_tokens=500_000)

    assert of("gpt-4.1", "batch", half_cached) == of(
        "gpt-4.1", "batch", Usage(input_tokens=1_000_000)
    )


@pytest.mark.parametrize(
    ("model", "tier", "endpoint"),
    [
        ("text-embedding-3-small", "batch", "/v1/embeddings"),
        ("gpt-oss-120b", "batch", CHAT),
        ("no-such-model", "batch", CHAT),
        ("no-such-model", "standard", CHAT),
        ("", "standard", CHAT),
        ("gpt-5-mini", "batch", "/v1/images/generations"),
    ],
)
def test_what_is_not_known_is_none_and_never_zero_or_the_full_price(
    model: str, tier: Any, endpoint: str
):
    assert of(model, tier, endpoint=endpoint) is None


def test_embeddings_have_a_standard_price():
    used = Usage(input_tokens=1_000_000)

    assert of("text-embedding-3-small", "standard", used, "/v1/embeddings") == pytest.approx(0.02)


def test_no_usage_is_no_price():
    assert of("gpt-5-mini", usage=None) is None
    assert of("gpt-5-mini", usage=Usage()) == 0.0


def test_before_the_first_day_of_a_tier_its_price_is_unknown():
    assert of("gpt-5-mini", "flex", at=datetime(2025, 9, 1, tzinfo=UTC).timestamp()) is None
    assert of("gpt-5-mini", "standard", at=datetime(2025, 9, 1, tzinfo=UTC).timestamp())


def test_more_cached_than_input_tokens_cost_nothing_less():
    odd = of("gpt-5-mini", usage=Usage(input_tokens=10, cached_tokens=20))

    assert odd is not None
    assert odd > 0
