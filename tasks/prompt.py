"""A prompt as it is: for tables whose prompts are written on the page or in the terminal."""

from __future__ import annotations

from typing import Any

from lowtide import batch_task, chat
from tasks.defaults import MODEL, PARAMS


@batch_task(name="tasks.prompt", model=MODEL, params=PARAMS)
def prompt(text: str, system: str | None = None, model: str | None = None) -> Any:
    """Asks `text` as it stands; `model` and `system` go before the defaults."""
    if not text.strip():
        raise ValueError("There is nothing to ask: the prompt is empty.")
    return chat(text, system=system or None, model=model or None)
