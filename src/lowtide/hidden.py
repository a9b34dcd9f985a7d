"""Prompts and answers stay out of logs and events, unless a setting shows them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from celery import Celery

_NAME = "LOWTIDE_SHOW_PROMPTS"
_SHOWN_ITEMS = 8


def shows_prompts(app: Celery) -> bool:
    """Whether the setting `show_prompts` is on; read without the settings library.

    Apps that only send tasks ask this too, and they do not load it.
    """
    given = app.conf.get("lowtide")
    if isinstance(given, Mapping) and "show_prompts" in given:
        value = given["show_prompts"]
    else:
        value = os.environ.get(_NAME) or _in_file()
    return str(value).strip().lower() in ("1", "true", "yes", "on", "t", "y")


@cache
def _in_file() -> str:
    """What `.env` says; read once, as each call asks."""
    if not Path(".env").is_file():
        return ""
    from dotenv import dotenv_values

    return dotenv_values(".env").get(_NAME) or ""


def veil(value: Any) -> str:
    """`value` with its shape but without its text: "(<str: 5121>, 60)"."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, Mapping):
        shown = [f"{key}={veil_item(item)}" for key, item in list(value.items())[:_SHOWN_ITEMS]]
        return "{" + _joined(shown, len(value)) + "}"
    if isinstance(value, list | tuple):
        shown = [veil_item(item) for item in value[:_SHOWN_ITEMS]]
        return "(" + _joined(shown, len(value)) + ")"
    return veil_item(value)


def veil_item(value: Any) -> str:
    """One value by its type and size; numbers as they are."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    kind = type(value).__name__
    return f"<{kind}: {len(value)}>" if hasattr(value, "__len__") else f"<{kind}>"


def _joined(shown: list[str], total: int) -> str:
    return ", ".join([*shown, "…"] if total > len(shown) else shown)
