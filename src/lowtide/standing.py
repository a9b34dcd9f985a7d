"""How it stands with those who are told of results: what waits for each, and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lowtide import control, tell
from lowtide.carried import RESULTS
from lowtide.destinations import check
from lowtide.errors import SettingsError
from lowtide.ledger import Backlog
from lowtide.shown import duration

if TYPE_CHECKING:
    from lowtide.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Standing:
    """One destination or named result backend.

    Attributes:
        name: As the outbox has it: a result backend's starts with "results:".
        waiting: How many results it is still to be told of.
        since: When the oldest of them came, epoch seconds; None when none waits.
        refused: How many of them it was told of and did not accept.
        error: Why not, for one of them.
        trouble: What somebody should do something about; None when all is well.
    """

    name: str
    waiting: int
    since: float | None
    refused: int
    error: str | None
    trouble: str | None


def standings(rt: Runtime) -> list[Standing]:
    """All that the settings have, and all for whom something waits."""
    waiting = {each.destination: each for each in rt.ledger.backlogs()}
    pauses = control.pauses(rt)
    found = []
    for name in sorted({*names(rt), *waiting}):
        backlog = waiting.get(name)
        pause = pauses.get(tell.subject(name))
        trouble = _trouble(rt, name, None if pause is None else pause.reason, backlog)
        if backlog is None:
            found.append(Standing(name, 0, None, 0, None, trouble))
        else:
            found.append(
                Standing(
                    name, backlog.waiting, backlog.since, backlog.failing, backlog.error, trouble
                )
            )
    return found


def names(rt: Runtime) -> list[str]:
    """All that the settings have, as the outbox names them."""
    return [*rt.settings.destinations, *(RESULTS + name for name in rt.settings.results)]


def _trouble(rt: Runtime, name: str, pause: str | None, backlog: Backlog | None) -> str | None:
    subject = tell.subject(name)
    try:
        check(rt.settings, [name])
    except SettingsError as error:
        return f"{error.message} Set it again, or `lowtide outbox --drop {name}`."
    if pause is not None:
        return f"paused: {pause}; `lowtide resume {subject}` tries again"
    chosen = rt.settings.destinations.get(name)
    if chosen is not None and chosen.webhook is not None:
        try:
            chosen.secrets(name)
        except SettingsError as error:
            return error.message
    if backlog is not None and tell.is_late(backlog, rt.clock.now()):
        age = duration(rt.clock.now() - backlog.since)
        return f"it has not accepted results for {age}: {backlog.error or 'nobody sends them'}"
    return None


def drop(rt: Runtime, name: str) -> int:
    """Lets go of all that waits for a destination; returns how many results that were."""
    return rt.ledger.drop_messages(name)
