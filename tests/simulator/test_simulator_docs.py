"""What docs/simulator.md says is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from lowtide import testing
from lowtide.simulator import SimulatorSettings
from lowtide.simulator.fault_kinds import KINDS
from lowtide.simulator.faults import parse_flag
from lowtide.simulator.settings import from_mapping
from lowtide.simulator.turnaround import parse

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "simulator.md").read_text()


def test_every_fault_and_what_it_can_be_told_is_in_the_table():
    table = TEXT.split("| where | kind |")[1].split("\n\n")[0]
    words = set(re.findall(r"`(\w+)`", table))
    for name, kind in KINDS.items():
        assert name in words
        assert set(kind.params) <= words, name


def test_the_toml_examples_are_valid():
    for block in re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL):
        from_mapping(tomllib.loads(block.replace("_…", "_QUJD")), SimulatorSettings())


def test_the_flags_and_turnarounds_are_valid():
    for flag in re.findall(r'--fault "([^"]+)"', TEXT):
        assert parse_flag(flag)["kind"] in KINDS
    table = TEXT.split("| written | means |")[1].split("\n\n")[0]
    for cell in re.findall(r"^\| (.+?) \|", table, re.MULTILINE):
        for spec in re.findall(r"`([^`]+)`", cell):
            parse(spec)


def test_the_admin_endpoints_are_those_that_are_served(batch_server):
    served = {
        f"/simulator{route.path}"
        for mount in batch_server._app.routes
        if mount.path == "/simulator"
        for route in mount.routes
    }
    table = TEXT.split("## Admin endpoints")[1].split("\n\n")[1]
    named = {re.sub(r"\{\w+\}", "{}", path) for path in re.findall(r"/simulator[\w/{}-]*", table)}
    assert named == {re.sub(r"\{\w+\}", "{}", path) for path in served}


def test_the_fixtures_are_there():
    table = TEXT.split("| fixture | gives |")[1].split("\n\n")[0]
    for name in re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE):
        assert hasattr(testing, name), name
