"""Work on text: its sentences, its frequent words, and a summary made of its own sentences."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

_READ = 6_000  # characters that are looked at: enough for a summary, and bounded work per request
_WORD = re.compile(r"[^\W\d_]{3,}")
_BREAK = re.compile(
    r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9\u00c0-\uffff])|\n\s*\n|\n(?=\s*(?:[-*+>#|]|\d+\.)\s)"
)
_CODE = re.compile(r"```.*?(?:```|\Z)|^(?: {4}|\t)[^\n]*$", re.DOTALL | re.MULTILINE)
_NOISE = re.compile(r"https?://|[{}|<>=]|^\s*(?:[#.:\-~*`$]|\d+\.\s*$)|::|\]\(|!\[|\w\(|\$ |__|--")
_ENDS = frozenset(".!?…")
_SPACE = re.compile(r"\s+")
_STOP = frozenset(
    [
        "the",
        "and",
        "for",
        "that",
        "this",
        "with",
        "from",
        "have",
        "has",
        "are",
        "was",
        "were",
        "not",
        "but",
        "you",
        "your",
        "can",
        "will",
        "its",
        "it's",
        "they",
        "their",
        "them",
        "then",
        "than",
        "also",
        "into",
        "such",
        "more",
        "most",
        "some",
        "any",
        "all",
        "one",
        "two",
        "which",
        "when",
        "where",
        "what",
        "who",
        "how",
        "there",
        "here",
        "been",
        "being",
        "would",
        "could",
        "should",
        "may",
        "might",
        "must",
        "shall",
        "does",
        "did",
        "done",
        "our",
        "out",
        "over",
        "under",
        "only",
        "other",
        "use",
        "used",
        "using",
        "der",
        "die",
        "das",
        "und",
        "ist",
        "mit",
        "les",
        "des",
        "une",
        "est",
    ]
)


def words(text: str) -> list[str]:
    """The words of three letters and more, in lower case, without the most common ones."""
    return [w for w in _WORD.findall(text.lower()) if w not in _STOP]


def sentences(text: str) -> list[str]:
    """The text's own sentences, white space made plain, without markup, links and tables."""
    prose = _CODE.sub("\n\n", text)
    parts = (_SPACE.sub(" ", part).strip() for part in _BREAK.split(prose) if part)
    found = [part for part in parts if part and not _NOISE.search(part)]
    return [part for part in found if part.rstrip("\"')]*_")[-1:] in _ENDS] or found


def keywords(text: str, count: int) -> list[str]:
    """The most frequent words; of equals the earlier one goes first."""
    return [word for word, _ in Counter(words(text[:_READ])).most_common(count)]


@lru_cache(maxsize=256)
def _summary(text: str, max_words: int) -> str:
    found = sentences(text) or [_SPACE.sub(" ", text).strip()]
    tokens = [words(sentence) for sentence in found]
    frequency = Counter(word for some in tokens for word in some)
    ranked = sorted(
        range(len(found)),
        key=lambda i: -_score(tokens[i], frequency, i),
    )
    chosen: list[int] = []
    room = max_words
    for index in ranked:
        length = found[index].count(" ") + 1
        if length <= room and length >= min(4, max_words):
            chosen.append(index)
            room -= length
        if room < 4:
            break
    if not chosen:
        return " ".join(found[ranked[0]].split(" ")[:max_words])
    return " ".join(found[index] for index in sorted(chosen))


def _score(tokens: list[str], frequency: Counter[str], position: int) -> float:
    if not tokens:
        return 0.0
    weight: float = sum(map(frequency.__getitem__, tokens)) / (len(tokens) + 4)
    return weight * (1.0 + 1.0 / (1 + position))


def summary(text: str, max_words: int = 60) -> str:
    """An extractive summary: the sentences with the most frequent words, in the text's order.

    Args:
        text: any text; its first 6,000 characters are read.
        max_words: how long the summary may be at most.

    Returns:
        Real sentences of the text, or the beginning of one when none is short enough.
    """
    return _summary(text[:_READ], max(1, max_words))


def title(text: str) -> str:
    """The first line with words in it, at most 12 words."""
    for raw in text.splitlines():
        line = raw.strip(" #*=-_>\t")
        if _WORD.search(line):
            return " ".join(line.split()[:12])
    return " ".join(text.split()[:12])
