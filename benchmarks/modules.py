"""The modules that measure, in the order of the report."""

from __future__ import annotations

from importlib import import_module

from benchmarks.figure import Figure
from benchmarks.options import Options

MODULES = (
    "whole",
    "sending",
    "accepting",
    "submitting",
    "fetching",
    "delivering",
    "canvas",
    "polling",
    "waiting",
    "holding",
    "scaling",
    "importing",
    "peers",
)


def measure(name: str, options: Options) -> list[Figure]:
    """What one module measures."""
    return list(import_module(f"benchmarks.{name}").run(options))
