"""What a prompt asks for: an instruction, a text, perhaps labels and a length."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_FENCED = re.compile(
    r"\A(?P<before>.{0,600}?)(?:"
    r"<(?P<tag>text|document|article|content|input|e?mail|ticket|message|passage|review|source|data)>"
    r"\s*(?P<tagged>.+)\s*</(?P=tag)>|\"\"\"\s*(?P<quoted>.+)\s*\"\"\")(?P<after>.{0,300})\Z",
    re.DOTALL | re.IGNORECASE,
)
_MAX_WORDS = re.compile(
    r"(\d{1,4})[\s-]*(?:words?|wörter|mots)|(\d{1,2})[\s-]*sentences?", re.IGNORECASE
)
_LABELS = re.compile(
    r"(?:labels?|categor(?:y|ies)|class(?:es)?|one of|options?|choices)\b[^:\n\[]{0,60}"
    r"(?::|(?=\[))(?P<list>(?:\s*\n\s*[-*\d][.)]?\s*[^\n]+)+|\s*\[[^\]]+\]|\s*[^\n]+)",
    re.IGNORECASE,
)
_ITEM = re.compile(r"\s*(?:,|;|\||\n\s*(?:[-*]|\d+[.)])?|\bor\b|\band\b)\s*")
_INSTRUCTION_LENGTH = 600


@dataclass(frozen=True, slots=True)
class Prompt:
    """An instruction and the text that it is about."""

    instruction: str
    text: str

    @property
    def max_words(self) -> int:
        """The length that the instruction asks for, 60 words when it is silent."""
        found = _MAX_WORDS.search(self.instruction)
        if not found:
            return 60
        return int(found[1]) if found[1] else int(found[2]) * 25

    @property
    def labels(self) -> list[str]:
        """The labels among which the instruction wants one, empty when it gives none."""
        found = _LABELS.search(self.instruction)
        if not found:
            return []
        listed = found["list"].strip().strip("[]").rstrip(".")
        items = (item.strip(" \t\"'`*-.()") for item in _ITEM.split(listed))
        labels = [item for item in items if item and len(item) <= 60]
        return list(dict.fromkeys(labels)) if len(labels) > 1 else []

    def wants(self, *stems: str) -> bool:
        """Does one of these word stems occur in the instruction?"""
        low = self.instruction.lower()
        return any(stem in low for stem in stems)


def content_text(content: Any) -> str:
    """The text of a message's content: a string, or a list of parts with ``text``."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (p if isinstance(p, str) else p.get("text", "") for p in content if p)
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""


def split(system: str, user: str) -> Prompt:
    """Tell instruction and text apart.

    A system message is instruction. What the user puts in quotes or tags is the text; otherwise
    the text is what follows a short first paragraph (one that ends with a colon, or when nothing
    else instructs).
    """
    fenced = _FENCED.search(user)
    if fenced:
        text = fenced["tagged"] or fenced["quoted"]
        return Prompt(f"{system}\n{fenced['before']}{fenced['after']}", text)
    head, sep, rest = user.partition("\n\n")
    if not sep and ":\n" in user[:_INSTRUCTION_LENGTH]:
        head, sep, rest = user.partition(":\n")
    is_order = head.rstrip().endswith(":") or not system
    if sep and rest.strip() and is_order and len(head) <= _INSTRUCTION_LENGTH:
        return _with_label_list(system, head, rest)
    return Prompt(system or user[:_INSTRUCTION_LENGTH], user)


def _with_label_list(system: str, head: str, rest: str) -> Prompt:
    # "Choose one of:\n\n- a\n- b\n\nText: ..." has its list in a paragraph of its own.
    listed, sep, text = rest.partition("\n\n")
    if sep and text.strip() and re.match(r"\s*[-*]\s", listed):
        return Prompt(f"{system}\n{head}\n{listed}", text)
    return Prompt(f"{system}\n{head}", rest)
