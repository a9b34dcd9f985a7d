"""Spend caps: they hold only what has a known price."""

from __future__ import annotations

from lowtide import spending
from lowtide.doctor.finding import Finding, good, risky
from lowtide.lane import Lane
from lowtide.runtime import Runtime

_PART = "Spend caps"
_SHOWN = 3


def caps(runtime: Runtime) -> list[Finding]:
    """Whether the price of every lane that a cap is to hold is known."""
    settings = runtime.settings
    if not spending.is_capped(settings):
        return []
    tasks = list(settings.task_spend_caps)
    lanes = [Lane.parse(status.lane) for status in runtime.buffer.lanes()]
    under = [lane for lane in lanes if spending.caps_of(settings, lane, tasks)]
    unknown = [lane.key for lane in under if not spending.is_priced(settings, lane)]
    if not unknown:
        return [good(_PART, f"the price of each of {len(under)} lanes under a cap is known")]
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    return [
        risky(
            _PART,
            f"no cap holds {', '.join(unknown[:_SHOWN])}{more}: the price is unknown",
            "Set LOWTIDE_PRICES for these models.",
        )
    ]
