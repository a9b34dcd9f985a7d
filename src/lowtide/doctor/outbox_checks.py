"""Those who are told of results: set as they should be, and accepting what they are told."""

from __future__ import annotations

from lowtide.doctor.finding import Finding, bad, good
from lowtide.doctor.store_checks import is_new
from lowtide.runtime import Runtime
from lowtide.standing import Standing, standings


def destinations(runtime: Runtime) -> list[Finding]:
    """Each destination and named result backend, and what waits for it."""
    if is_new(runtime):
        return []
    return [_finding(each) for each in standings(runtime)]


def _finding(each: Standing) -> Finding:
    part = f"Destination {each.name}"
    waiting = f"{each.waiting:,} results wait" if each.waiting else "nothing waits"
    if each.trouble is None:
        return good(part, waiting)
    return bad(part, f"{waiting}; {each.trouble}", "`lowtide outbox` shows what waits.")
