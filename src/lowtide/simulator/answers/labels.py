"""Choosing a label for a text: by the label's own words, and by words that go with it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from lowtide.simulator.answers.text import words

_STEM = 5
_READ = 6_000
_HINTS: dict[str, str] = {
    "positive": "good great excellent love loved happy perfect wonderful amazing best nice fast "
    "thanks helpful recommend enjoy pleased delighted beautiful",
    "negative": "bad terrible awful hate broken worst poor slow disappointed useless refund never "
    "wrong angry fail failed crash horrible waste annoying problem",
    "bug": "bug error crash broken fails failed exception traceback wrong regression",
    "feature": "feature request add support would wish please option ability",
    "billing": "invoice payment refund charge charged card price bill subscription money paid",
    "shipping": "delivery parcel package shipped courier tracking arrived late address",
    "technical": "error install crash version server connection login password software update",
    "account": "login password account email username profile access locked",
    "spam": "free winner click offer prize cash viagra unsubscribe lottery urgent",
    "urgent": "urgent immediately asap now down outage emergency critical",
    "high": "urgent immediately asap outage critical down blocked",
    "sports": "game team player match season league goal coach football tennis",
    "business": "market company shares profit bank stock economy sales revenue",
    "politics": "government minister election parliament president party vote law",
    "technology": "software computer internet data device phone online system technology",
    "science": "research study scientists cells energy species physics experiment",
    "question": "how what why where which who question does",
    "complaint": "complaint disappointed refund broken late unacceptable angry wrong",
}
_FALLBACKS = ("other", "neutral", "unknown", "none", "general", "mixed")


def pick(labels: Sequence[str], text: str) -> str:
    """The label that the text speaks for most.

    Args:
        labels: at least one label, given back as it is written here.
        text: what is to be classified; its first 6,000 characters are read.

    Returns:
        The best label; when the text speaks for none, a catch-all such as ``other`` if there is
        one, else one that depends on the text alone.
    """
    return _pick(tuple(labels), text[:_READ])


@lru_cache(maxsize=256)
def _pick(labels: tuple[str, ...], text: str) -> str:
    counts = Counter(word[:_STEM] for word in words(text))
    scores = [_score(label, counts) for label in labels]
    best = max(scores)
    if best > 0:
        return labels[scores.index(best)]
    for label in labels:
        if label.lower() in _FALLBACKS:
            return label
    digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=4).digest()
    return labels[int.from_bytes(digest, "big") % len(labels)]


def _score(label: str, counts: Counter[str]) -> float:
    low = label.lower().replace("_", " ").replace("-", " ")
    score = 3.0 * sum(counts[word[:_STEM]] for word in words(low))
    for name, hints in _HINTS.items():
        if name in low or (len(low) > 3 and low in name):
            score += sum(counts[hint[:_STEM]] for hint in hints.split())
    return score
