"""A deployment that the tests of one module share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lowtide.errors import LowtideError
from tests.chaos.deployment import Deployment
from tests.plugins.stack import client_of

MODULE = "tests.chaos.app"


def started(folder: Path, **options: Any) -> Deployment:
    """A deployment; without Valkey skips, in CI fails."""
    try:
        return Deployment(folder, **options)
    except LowtideError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


def client_app(url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The app as a client has it, by the direct path."""
    monkeypatch.setenv("LOWTIDE_REDIS_URL", url)
    return client_of(MODULE).app


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch
