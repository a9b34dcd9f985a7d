"""`lowtide batches` and `lowtide batch`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from lowtide.cli.context import AppOption, JsonOption, console, print_json, runtime
from lowtide.cli.tables import Whole, clock, number, table
from lowtide.errors import LowtideError
from lowtide.ledger import BatchRow, BatchState
from lowtide.ledger.lookups import OutcomeCount
from lowtide.runtime import Runtime
from lowtide.shown import dollars, duration, size

_STEPS = ("sealed", "recorded", "uploaded", "submitted", "ended", "fetched", "delivered")
_NAMED = 3


def batches(
    state: Annotated[
        list[BatchState] | None,
        typer.Option(
            "--state", help="Only these; may be given more than once.", case_sensitive=False
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 50,
    app: AppOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """List batches, the last first."""
    rt = runtime(app)
    found = rt.ledger.find_batches(states=state or None, limit=limit)
    if json:
        print_json([asdict(row) for row in found])
    else:
        console().print(batch_table(found, rt.clock.now(), "Batches"))


def batch(
    batch_id: Annotated[str, typer.Argument(help="Its id, ours or the provider's.")],
    app: AppOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Show one batch: its way so far, how its requests ended, what it cost."""
    rt = runtime(app)
    row = find(rt, batch_id)
    outcomes = rt.ledger.outcomes_in(row.id)
    money = rt.ledger.cost_of(row.id)
    if json:
        ended = [asdict(outcome) for outcome in outcomes]
        print_json({**asdict(row), "outcomes": ended, "money": asdict(money)})
        return
    saved = f"{dollars(money.cost)}, {dollars(money.saving)} saved"
    console().print(_facts(row), _outcome_table(outcomes), Text(f"Cost: {saved}"))


def find(rt: Runtime, batch_id: str) -> BatchRow:
    """The batch of that id, ours or the provider's.

    Raises:
        LowtideError: The ledger has none.
    """
    row = rt.ledger.batch(batch_id)
    if row is None:
        named = rt.ledger.find_batches(limit=10_000)
        row = next((each for each in named if each.provider_batch_id == batch_id), None)
    if row is None:
        raise LowtideError(f"The ledger has no batch {batch_id}; `lowtide batches` lists them.")
    return row


def batch_table(found: Sequence[BatchRow], now: float, title: str) -> RenderableType:
    """Batches, for people."""
    if not found:
        return Text("No batch." if title == "Batches" else "No batch is on its way.", style="dim")
    made = table(
        title,
        {"batch": None, "model": 24, "state": 10},
        ["requests", "done", "age", "end"],
    )
    for row in found:
        done = None if row.completed is None else row.completed + (row.failed or 0)
        made.add_row(
            row.id,
            row.model,
            str(row.state),
            number(row.requests),
            number(done),
            duration(now - row.sealed_at),
            _end(row, now),
        )
    return Whole(made, _notes(found))


def _notes(found: Sequence[BatchRow]) -> Iterator[str]:
    """Why batches are where they are: each reason once, with the batches that have it."""
    having: dict[str, list[str]] = {}
    for row in found:
        if row.reason:
            having.setdefault(row.reason, []).append(row.id)
    for reason, ids in having.items():
        more = len(ids) - _NAMED
        others = f" and {more:,} more" if more > 0 else ""
        yield f"{', '.join(ids[:_NAMED])}{others}: {reason}"


def _end(row: BatchRow, now: float) -> str:
    if row.ended_at is not None or row.expected_end is None:
        return ""
    left = row.expected_end - now
    return f"in {duration(left)}" if left > 0 else f"{duration(-left)} late"


def _facts(row: BatchRow) -> RenderableType:
    facts = table(f"Batch {row.id}", {"": None, " ": None})
    for name, value in (
        ("state", f"{row.state}{f': {row.reason}' if row.reason else ''}"),
        ("lane", row.lane),
        ("requests", f"{row.requests:,} ({size(row.bytes)}, about {row.tokens:,} tokens)"),
        ("at the provider", f"{row.provider_batch_id or '-'} {row.provider_status or ''}"),
        ("requests of", row.parent or ""),
        ("end expected", clock(row.expected_end)),
    ):
        if value:
            facts.add_row(name, value)
    way, before = [], row.sealed_at
    for step in _STEPS:
        moment = getattr(row, f"{step}_at")
        if moment is not None:
            way.append(f"{step:<10} {clock(moment)}  +{duration(moment - before)}")
            before = moment
    return Group(facts, Text("\n".join(way)))


def _outcome_table(outcomes: Sequence[OutcomeCount]) -> RenderableType:
    made = table("Requests", {"state": None, "code": None, "message": None}, ["status", "count"])
    for each in outcomes:
        made.add_row(
            str(each.state),
            each.code or "",
            each.message or "",
            number(each.status),
            f"{each.count:,}",
        )
    return made
