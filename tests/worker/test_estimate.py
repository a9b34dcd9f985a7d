"""The demo says what it will cost, by the prices of the account's own provider."""

from __future__ import annotations

import pytest

from lowtide.lane import Lane
from lowtide.settings import Account, SetPrice, Settings
from worker.demo.estimate import estimate_all
from worker.demo.texts import Description

CHAT = "/v1/chat/completions"


def test_prices_are_those_of_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    texts = [Description("package", "word " * 100)] * 10
    own = Settings(
        accounts={"default": Account(), "own": Account(profile="groq")},
        prices={"my-model": SetPrice(input=2.0, output=4.0, batch=0.25)},
    )

    openai = estimate_all(texts, Lane("default", CHAT, "gpt-5-mini"), own)
    given = estimate_all(texts, Lane("own", CHAT, "my-model"), own)
    llama = "llama-3.3-70b-versatile"
    groq = estimate_all(texts, Lane("own", CHAT, llama), own)
    unknown = estimate_all(texts, Lane("default", CHAT, llama), own)

    assert openai.batch
    assert openai.standard == pytest.approx(2 * openai.batch)
    assert given.standard == pytest.approx(
        (2 * given.input_tokens + 4 * given.output_tokens) / 1_000_000
    )
    assert given.standard
    assert given.batch == pytest.approx(0.25 * given.standard)
    assert groq.standard
    assert (unknown.batch, unknown.standard) == (None, None)
