"""What a demo ends with: the answers, the batches, and what it cost and saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lowtide.ledger.rows import BatchRow, CostRow
from lowtide.shown import dollars, duration
from worker.demo.estimate import Estimate
from worker.demo.texts import Description

SHOWN = 12


def estimate(console: Console, expected: Estimate) -> None:
    """What is going to be spent."""
    console.print(
        f"{expected.requests} requests, about {expected.input_tokens:,} tokens in and "
        f"{expected.output_tokens:,} out: about [bold]{_or_unknown(expected.batch)}[/] by batch, "
        f"{_or_unknown(expected.standard)} by the synchronous API. Batches may take up to 24 hours."
    )


def answers(
    console: Console, texts: Sequence[Description], results: Mapping[str, object], *, every: bool
) -> None:
    """A table of what came back.

    Args:
        results: Summary, or the error, by package.
        every: Show all of them in place of the first few.
    """
    shown = texts if every else texts[:SHOWN]
    table = Table(title=f"{len(results)} answers", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("package", style="cyan", no_wrap=True)
    table.add_column("characters", justify="right")
    table.add_column("summary")
    for text in shown:
        answer = results[text.package]
        style = "red" if isinstance(answer, Exception) else ""
        table.add_row(text.package, f"{len(text.text):,}", Text(_one_line(str(answer)), style))
    console.print(table)
    if len(shown) < len(texts):
        console.print(
            f"  … and {len(texts) - len(shown)} more: make demo ARGS=--all\n", style="dim"
        )


def batches(console: Console, rows: Sequence[BatchRow], costs: Mapping[str, CostRow]) -> None:
    """A table of the provider's batches."""
    title = "1 batch" if len(rows) == 1 else f"{len(rows)} batches"
    title += ", with their tokens in and out"
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("batch", no_wrap=True, style="cyan", max_width=13)
    table.add_column("model", no_wrap=True)
    for name in ("requests", "in", "out", "took", "cost", "saved"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        spent = costs.get(row.id)
        table.add_row(
            row.provider_batch_id or row.id,
            row.model,
            f"{row.requests:,}",
            f"{spent.input_tokens:,}" if spent else "",
            f"{spent.output_tokens:,}" if spent else "",
            _span(row.submitted_at, row.ended_at),
            dollars(spent.cost) if spent else "",
            dollars(spent.saving) if spent else "",
        )
    console.print(table)


def money(console: Console, total: CostRow, *, simulated: bool) -> None:
    """One line: what all of it cost and saved."""
    share = f" ({total.saving / total.full_price:.0%})" if total.full_price else ""
    paid = "would have cost" if simulated else "cost"
    console.print(
        f"This {paid} [bold]{dollars(total.cost)}[/] by batch and {dollars(total.full_price)} "
        f"by the synchronous API: [bold green]{dollars(total.saving)} saved{share}[/].",
        soft_wrap=True,
    )
    if total.unpriced:
        console.print(f"The price of {total.unpriced} answers is unknown and not counted.")


def _or_unknown(amount: float | None) -> str:
    return "an unknown price" if amount is None else dollars(amount)


def _span(start: float | None, end: float | None) -> str:
    return duration(end - start) if start and end else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
