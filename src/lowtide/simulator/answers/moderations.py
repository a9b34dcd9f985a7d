"""Answers of ``/v1/moderations``: a small lexicon for each category."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any

from lowtide.simulator.answers.models import snapshot
from lowtide.simulator.answers.usage import Tokens, count
from lowtide.simulator.errors import invalid_type, missing

_LEXICON = {
    "harassment": "idiot|moron|loser|stupid|shut up|pathetic",
    "harassment/threatening": "i will find you|watch your back|you will regret",
    "hate": "subhuman|vermin|inferior race",
    "hate/threatening": "exterminate them|wipe them out",
    "illicit": "steal|shoplift|counterfeit|launder|hack into",
    "illicit/violent": "build a bomb|make explosives|buy a gun illegally",
    "self-harm": "self-harm|cut myself|suicide",
    "self-harm/intent": "kill myself|end my life|want to die",
    "self-harm/instructions": "how to hang|lethal dose",
    "sexual": "porn|explicit sex|nude",
    "sexual/minors": "underage sex",
    "violence": "kill|murder|stab|shoot|attack|bomb",
    "violence/graphic": "blood everywhere|dismember|gore|mutilat",
}
_PATTERNS = {name: re.compile(rf"\b(?:{w})", re.IGNORECASE) for name, w in _LEXICON.items()}


def moderation(body: Mapping[str, Any], now: float) -> tuple[dict[str, Any], Tokens]:
    """Answer a moderation request; a list of strings gives one result each.

    Raises:
        ApiError: 400 when there is no input, or of a wrong type.
    """
    del now
    inputs = _inputs(body.get("input"))
    return {
        "id": f"modr-{secrets.token_hex(14)}",
        "model": snapshot(str(body["model"])),
        "results": [_judge(text) for text in inputs],
    }, Tokens(sum(map(count, inputs)), 0)


def _judge(text: str) -> dict[str, Any]:
    hits = {name: len(pattern.findall(text)) for name, pattern in _PATTERNS.items()}
    return {
        "flagged": any(hits.values()),
        "categories": {name: hit > 0 for name, hit in hits.items()},
        "category_scores": {
            name: round(1.0 - 0.5**hit, 4) if hit else 0.0001 for name, hit in hits.items()
        },
        "category_applied_input_types": {name: ["text"] for name in hits},
    }


def _inputs(given: Any) -> list[str]:
    if given is None:
        raise missing("input")
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise invalid_type("input", "a string or an array", given)
    if all(isinstance(item, str) for item in given):
        return given
    parts = [item for item in given if isinstance(item, Mapping)]  # one input of several parts
    if len(parts) != len(given):
        raise invalid_type("input", "an array of strings or of objects", given)
    return ["\n".join(str(part.get("text", "")) for part in parts)]
