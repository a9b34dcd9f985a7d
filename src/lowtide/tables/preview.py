"""What a table would ask and cost, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from lowtide import steps
from lowtide.calls import Call
from lowtide.errors import LowtideError
from lowtide.lane import Lane
from lowtide.request import encode
from lowtide.tables.formats import TableError, columns_of, read_rows
from lowtide.tables.plan import Plan

if TYPE_CHECKING:
    from celery import Celery

    from lowtide.task import BatchTask

_SHOWN = 3
_SAMPLE = 500
_OUTPUT_TOKENS = 150
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Shown:
    """A row as it would be asked.

    Attributes:
        text: What the task gets.
        request: What the model gets; None when the task needs no model for it.
        problem: Why the task refuses the row, "" when it does not.
    """

    text: str
    request: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class Preview:
    """A table before it is started.

    Attributes:
        columns: Its columns.
        rows: How many rows it has.
        empty: How many of them have no text and are not sent.
        shown: The first rows.
        model: The model that would be asked.
        input_tokens: Estimate for the whole table.
        output_tokens: Estimate for the whole table, by what answers of the task were long.
        cost: USD, None when the price is not known.
        full_price: USD at the synchronous API, None when it is not known.
    """

    columns: Sequence[str]
    rows: int
    empty: int
    shown: Sequence[Shown]
    model: str | None
    input_tokens: int
    output_tokens: int
    cost: float | None
    full_price: float | None


def preview(
    app: Celery, source: Path, plan: Plan, *, answer_tokens: float | None = None
) -> Preview:
    """Reads the table once, in constant memory, and asks the task for what it would send.

    Args:
        app: An app that has the task's code.
        source: The table.
        plan: What becomes of a row.
        answer_tokens: Mean output tokens of earlier answers of the task, where known.

    Raises:
        TableError: The plan does not fit the table, or the app has no such task.
    """
    columns = columns_of(source)
    plan.check(columns)
    task = batch_task(app, plan.task)
    shown: list[Shown] = []
    rows = empty = sampled = size = 0
    first: Call | None = None
    for row in read_rows(source):
        rows += 1
        call = plan.call(row)
        if call is None:
            empty += 1
        if call is None or (sampled >= _SAMPLE and len(shown) >= _SHOWN):
            continue
        request, problem = _request(task, *call)
        if len(shown) < _SHOWN:
            shown.append(Shown(call[0][0], _readable(request) if request else None, problem))
        if request is not None:
            first = first or request
            sampled += 1
            size += len(encode(request, account=task.account)[1])
    asked = rows - empty
    input_tokens = round(size / _BYTES_PER_TOKEN / sampled * asked) if sampled else 0
    output_tokens = round((answer_tokens or _OUTPUT_TOKENS) * asked)
    cost, full_price = _prices(task, first, input_tokens, output_tokens)
    model = first.body.get("model") if first else None
    return Preview(
        columns, rows, empty, shown, model, input_tokens, output_tokens, cost, full_price
    )


def batch_task(app: Celery, name: str) -> Any:
    """The batch task of that name.

    Raises:
        TableError: The app has none.
    """
    from lowtide.task import BatchTask

    task = app.tasks.get(name)
    if not isinstance(task, BatchTask):
        known = ", ".join(batch_tasks(app)) or "none"
        raise TableError(f"No batch task is named {name!r}; there are: {known}.")
    return task


def batch_tasks(app: Celery) -> list[str]:
    """Names of the app's batch tasks."""
    from lowtide.task import BatchTask

    return sorted(name for name, task in app.tasks.items() if isinstance(task, BatchTask))


def _request(task: Any, args: list[Any], kwargs: dict[str, Any]) -> tuple[Call | None, str]:
    """The first request of a call, and why there is none."""
    try:
        step = steps.advance(task.build(*args, **kwargs), [], task.to_call)
    except LowtideError as error:
        return None, error.message
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
    return (step.call, "") if isinstance(step, steps.Asks) else (None, "")


def _readable(call: Call) -> str:
    """The words of a request, without the parameters around them."""
    messages = call.body.get("messages")
    if isinstance(messages, list):
        parts = [f"[{item.get('role')}] {item.get('content')}" for item in messages]
        return "\n".join(parts)
    given = call.body.get("input") or call.body.get("prompt")
    return given if isinstance(given, str) else orjson.dumps(given, default=str).decode()


def _prices(
    task: BatchTask, call: Call | None, input_tokens: int, output_tokens: int
) -> tuple[float | None, float | None]:
    if call is None:
        return None, None
    from lowtide import prices, runtime
    from lowtide.tokens import Usage

    settings = runtime.of(task.app).settings
    lane = Lane(task.account, call.endpoint, str(call.body.get("model")))
    usage = Usage(input_tokens, 0, output_tokens, 0)
    return (
        prices.price_of(settings, lane, usage, tier="batch"),
        prices.price_of(settings, lane, usage, tier="standard"),
    )
