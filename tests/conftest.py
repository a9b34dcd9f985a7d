"""Plugins with the fixtures that all tests share."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.plugins.postgres",
    "tests.plugins.rabbitmq",
    "tests.plugins.redis",
    "tests.plugins.stack",
]

# How long examples take to make depends on what else the machine does.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")

# Files that take a minute or more, the longest first. They begin before the others: whoever took
# one of them last would keep the other processes waiting.
_LONG = (
    "canvas/test_matrix.py",
    "canvas/test_worker.py",
    "worker/test_demo.py",
    "faults_peers/test_peer_table.py",
    "ledger/test_move.py",
    "outbox/test_elsewhere.py",
    "faults/test_services_away.py",
    "outbox/test_tell.py",
    "ledger/test_races.py",
    "replay/test_replay.py",
    "integration/test_pools.py",
    "integration/test_main_job.py",
    "worker/test_flower.py",
    "web/test_control.py",
    "sharing/test_whole.py",
    "examples/test_examples.py",
    "chaos/test_machine.py",
    "faults/test_told_to_stop.py",
)
_PLACES = {Path(__file__).parent / name: place for place, name in enumerate(_LONG)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _PLACES.get(item.path, len(_PLACES)))
