"""Vectors for texts."""

from __future__ import annotations

from typing import Any

from lowtide import batch_task
from tasks.defaults import EMBEDDING_MODEL


@batch_task(name="tasks.embed", model=EMBEDDING_MODEL, endpoint="/v1/embeddings")
def embed(texts: str | list[str]) -> Any:
    """Gives the vector of a text, or the list of vectors of a list of texts."""
    given = [texts] if isinstance(texts, str) else texts
    if not given or not all(text.strip() for text in given):
        raise ValueError("There is nothing to embed: a text, or the list of them, is empty.")
    return texts
