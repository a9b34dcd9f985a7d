"""`lowtide task`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from lowtide import attempts
from lowtide.cli.context import AppOption, JsonOption, console, print_json, runtime
from lowtide.cli.tables import clock, number, table
from lowtide.errors import LowtideError
from lowtide.shown import dollars

if TYPE_CHECKING:
    from lowtide.ledger import RequestRow


def task(
    task_id: Annotated[str, typer.Argument(help="Celery's id of the call.")],
    app: AppOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Show one task's call: where it is, and every request that it made."""
    rt = runtime(app)
    where = rt.buffer.where([task_id])[0]
    rows = rt.ledger.task(task_id)
    if where is None and not rows:
        raise LowtideError(f"lowtide knows no task {task_id}: was it accepted by a worker?")
    tried = rt.ledger.attempts([row.custom_id for row in rows])
    if json:
        requests = [
            {**asdict(row), "attempts": attempts.told(tried.get(row.custom_id, []))} for row in rows
        ]
        print_json({"where": where and asdict(where), "requests": requests})
        return
    out = console()
    if where is not None and where.state not in ("DELIVERED", None):
        size = "" if where.requests is None else f" of {where.requests:,}"
        out.print(f"{where.state} in batch {where.batch_id}, place {where.position + 1}{size}")
        if where.state == "HELD":
            out.print(where.summary.get("reason", ""))
        if where.expected_end is not None:
            out.print(f"end expected at {clock(where.expected_end)}")
    if not rows:
        return
    names = {"request": None, "batch": None, "state": None, "error": None}
    made = table(f"Task {rows[0].task}", names, ["tries", "in", "out", "cost", "done"])
    for row in rows:
        made.add_row(
            row.custom_id,
            row.batch_id,
            str(row.state),
            row.error_message or row.error_code or "",
            number(row.attempt),
            number(row.input_tokens),
            number(row.output_tokens),
            _cost(row),
            clock(row.done_at),
        )
    out.print(made)
    for custom_id, failed in tried.items():
        out.print(f"{custom_id} had no answer before: {attempts.line(failed)}.")


def _cost(row: RequestRow) -> str:
    if row.tier == "shared":  # another request of the same line pays
        return row.tier
    return "" if row.cost is None else dollars(row.cost)
