"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil

_SHOWN = ("celery", "kombu", "redis", "hiredis", "orjson", "msgspec", "zstandard", "sqlalchemy")


def described() -> str:
    """Processor, memory, system, versions and how busy the machine is, as one line each."""
    memory = psutil.virtual_memory().total / 1e9
    lines = [
        f"{psutil.cpu_count()} cores of {_processor()}, {memory:.0f} GB",
        f"{platform.system()}, Python {platform.python_version()}",
        ", ".join(f"{name} {version(name)}" for name in _SHOWN),
    ]
    return "; ".join(lines)


def load() -> float:
    """Processes that want to run, over the last minute; more than the cores: others are busy."""
    return os.getloadavg()[0]


def _processor() -> str:
    try:
        words = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in words if line.startswith("model name")]
    return named[0] if named else platform.machine()
