"""What README and its neighbours say is so: commands, settings, names, links and examples."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from lowtide.cli.root import COMMANDS
from lowtide.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md"))]
CONFIGS = [ROOT / name for name in ("docker-compose.yml", "Dockerfile", "config/.env.example")]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def shown(name: str, value: Any) -> str:
    if value is None or value == {} or name == "accounts":
        return ""
    if isinstance(value, float):
        if value < 1:
            return f"`{value * 1000:g}ms`"
        size, unit = next((size, unit) for size, unit in UNITS if value % size == 0)
        return f"`{value / size:g}{unit}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def settings_table() -> str:
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = shown(name, field.get_default(call_default_factory=True))
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def test_the_settings_table_is_right() -> None:
    found = re.search(r"<!-- settings:.*?-->\n(.*?)\n?<!-- /settings -->", README, re.DOTALL)
    assert found
    assert found[1] == settings_table(), f"README's table should be:\n\n{settings_table()}"


@pytest.mark.parametrize("page", [*PAGES, *CONFIGS], ids=lambda page: page.name)
def test_settings_that_are_named_exist(page: Path) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    named = set(re.findall(r"LOWTIDE_[A-Z_]*[A-Z]", text(page)))
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", text(ROOT / "Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^|&& )make ([a-z]+)", text(page), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"`lowtide ([a-z]+)", text(page)))
    assert named <= set(COMMANDS)


def test_each_alert_has_its_advice() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", text(ROOT / "config" / "alerts.yml")))
    advice = text(ROOT / "docs" / "operations.md")
    assert set(re.findall(r"^### (Lowtide\w+)", advice, re.MULTILINE)) == alerts


def test_every_command_is_in_readme() -> None:
    assert set(re.findall(r"^\| `lowtide ([a-z]+)`", README, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", text(page))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_ci_runs_readmes_targets() -> None:
    script = text(ROOT / ".ci" / "run")
    for target in ("setup", "lint", "types", "demo", "wheel", "test"):
        assert re.search(rf"^\s*make {target}\b", script, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_compile(page: Path) -> None:
    for language, code in FENCE.findall(text(page)):
        if language == "python":
            ast.parse(code)


def test_the_first_example_runs() -> None:
    code = next(code for language, code in FENCE.findall(README) if language == "python")
    check = "assert summarize.name.endswith('summarize'), summarize.name; app.finalize()"
    ran = subprocess.run([sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def dependencies() -> list[str]:
    project = tomllib.loads(text(ROOT / "pyproject.toml"))
    groups = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    return sorted({re.split(r"[\[<>=~ ]", line)[0] for group in groups for line in group})


def pins() -> set[str]:
    lines = text(ROOT / "config/constraints.txt").splitlines()
    return {normal(line.partition("==")[0]) for line in lines}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


@pytest.mark.parametrize("name", dependencies())
def test_each_dependency_is_pinned_and_explained(name: str) -> None:
    assert normal(name) in pins()
    assert re.search(rf"\b{re.escape(name)}\b", text(ROOT / "CONTRIBUTING.md"))


def test_everything_that_is_installed_for_the_project_is_pinned() -> None:
    project = tomllib.loads(text(ROOT / "pyproject.toml"))
    known = project["project"]
    groups = [known["dependencies"], *known["optional-dependencies"].values()]
    groups.append(project["dependency-groups"]["dev"])
    todo = [Requirement(line) for group in groups for line in group]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        wanted = todo.pop()
        key = (normal(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        for line in requires(wanted.name) or ():
            further = Requirement(line)
            marker = further.marker
            extras = ["", *wanted.extras]
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(further)
    assert {name for name, _ in seen} - pins() == set()


def test_the_lock_names_no_place() -> None:
    lock = text(ROOT / "config/constraints.txt")
    lines = [line for line in lock.splitlines() if not line.startswith("#")]
    pin = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+( ; [a-z_]+ [<>=]+ \"[0-9.]+\")?")
    assert [line for line in lines if not pin.fullmatch(line)] == []
