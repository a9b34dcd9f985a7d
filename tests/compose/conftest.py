"""Containers are started only when they are asked for: `make compose`, or pytest `-m compose`."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "compose" in config.option.markexpr:
        return
    asked = pytest.mark.skip(reason="takes minutes and a container engine: make compose")
    for item in items:
        if item.get_closest_marker("compose"):
            item.add_marker(asked)
