"""Which models the ready-made tasks use: from the environment, one place for all of them."""

from __future__ import annotations

import json
import os
from typing import Any

_MODEL = "gpt-5-mini"

MODEL = os.environ.get("TASKS_MODEL") or _MODEL
EMBEDDING_MODEL = os.environ.get("TASKS_EMBEDDING_MODEL") or "text-embedding-3-small"
MODERATION_MODEL = os.environ.get("TASKS_MODERATION_MODEL") or "omni-moderation-latest"


def _params() -> dict[str, Any]:
    """API parameters of every chat call: `TASKS_PARAMS` as JSON.

    The default model reasons at length unless told otherwise, which these tasks do not need;
    another model may not know the parameter.
    """
    given = os.environ.get("TASKS_PARAMS")
    if not given:
        return {"reasoning_effort": "low"} if MODEL == _MODEL else {}
    try:
        params = json.loads(given)
    except json.JSONDecodeError as error:
        raise ValueError(f"TASKS_PARAMS is not JSON: {error}.") from None
    if not isinstance(params, dict):
        raise TypeError('TASKS_PARAMS is not a JSON object; write {"temperature": 0}.')
    return params


PARAMS = _params()
