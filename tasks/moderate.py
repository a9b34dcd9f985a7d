"""A judgement whether a text should be kept from others, by a moderation model."""

from __future__ import annotations

from typing import Any

from lowtide import batch_task
from lowtide import moderate as moderation
from tasks.defaults import MODERATION_MODEL


@batch_task(name="tasks.moderate", model=MODERATION_MODEL, endpoint="/v1/moderations")
def moderate(texts: str | list[str]) -> Any:
    """Judges a text, or each of a list of texts.

    The result has `flagged`, and by category `categories` (whether) and `category_scores` (how
    much, from 0 to 1); a list of these for a list of texts.
    """
    given = [texts] if isinstance(texts, str) else texts
    if not given or not all(text.strip() for text in given):
        raise ValueError("There is nothing to judge: a text, or the list of them, is empty.")
    return moderation(texts)
