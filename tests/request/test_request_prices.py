"""Prices: by tier, and unknown where nothing is known."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from genai_prices import Usage as PricedUsage
from genai_prices import calc_price

from lowtide.errors import SettingsError
from lowtide.lane import Lane
from lowtide.prices import price, price_of
from lowtide.settings import load
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


def by_account(
    model: str = "my-model",
    usage: Usage | None = MILLION,
    *,
    tier: Any = "batch",
    answered: str | None = None,
    endpoint: str = CHAT,
    **settings: Any,
) -> float | None:
    return price_of(
        load({"accounts": {"a": {}, **settings.pop("accounts", {})}, **settings}),
        Lane("a", endpoint, model),
        usage,
        tier=tier,
        model=answered,
        at=NOW,
    )


MINE = {"my-model": {"input": 2.0, "output": 8.0, "cached": 1.0, "batch": 0.25}}


@pytest.mark.parametrize(("tier", "expected"), [("standard", 10.0), ("batch", 2.5), ("flex", 2.5)])
def test_a_price_that_is_set_goes_before_all(tier: Any, expected: float):
    assert by_account(tier=tier, prices=MINE) == pytest.approx(expected)
    assert by_account("gpt-5", tier=tier, prices={"gpt-5": MINE["my-model"]}) == expected


def test_a_set_price_counts_cached_tokens_apart():
    usage = Usage(1_000_000, 400_000, 0)

    assert by_account(usage=usage, tier="standard", prices=MINE) == pytest.approx(1.6)
    whole = {"my-model": {"input": 2.0}}
    assert by_account(usage=usage, tier="standard", prices=whole) == pytest.approx(2.0)


def test_what_a_set_price_leaves_open_is_unknown():
    assert by_account(prices={"my-model": {"input": 2.0}}) is None


def test_a_price_is_found_by_the_deployments_name_or_by_the_model_that_answered():
    assert by_account("deployed", answered="my-model", prices=MINE) == pytest.approx(2.5)
    assert by_account("my-model", answered="gpt-5", prices=MINE) == pytest.approx(2.5)
    azure = {"a": {"profile": "azure"}}
    half = by_account("deployed", answered="gpt-5-mini", accounts=azure)
    full = by_account("deployed", answered="gpt-5-mini", accounts=azure, tier="standard")
    assert full
    assert half == pytest.approx(full / 2)
    assert by_account("deployed", accounts=azure) is None


@pytest.mark.parametrize(
    ("profile", "model", "known"),
    [
        ("groq", "openai/gpt-oss-120b", True),
        ("groq", "llama-3.1-8b-instant", False),
        ("groq", "gpt-5-mini", False),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo", False),
        ("doubleword", "Qwen/Qwen3-14B-FP8", False),
        ("compatible", "gpt-5-mini", True),
        ("compatible", "my-model", False),
    ],
)
def test_prices_are_those_of_the_accounts_provider(profile: str, model: str, known: bool):
    found = by_account(model, accounts={"a": {"profile": profile}})

    assert (found is not None) == known
    assert found != 0


def test_embeddings_cost_half_in_a_batch_of_openai():
    usage = Usage(1_000_000)
    model, endpoint = "text-embedding-3-small", "/v1/embeddings"

    assert by_account(model, usage, endpoint=endpoint) == pytest.approx(0.01)
    assert by_account(model, usage, endpoint=endpoint, tier="flex") is None


def test_without_usage_no_price_is_known():
    assert by_account(usage=None, prices=MINE) is None


@pytest.mark.parametrize(
    "wrong", [{"input": -1}, {"output": 1}, {"input": 1, "batch": 2}, {"in": 1}]
)
def test_a_price_that_makes_no_sense_is_an_error(wrong: dict[str, float]):
    with pytest.raises(SettingsError, match=r"LOWTIDE_PRICES\.M"):
        load({"prices": {"m": wrong}})
