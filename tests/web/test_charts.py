"""Charts: scales that fit, and words for those who cannot see them."""

from __future__ import annotations

import re

import pytest

from worker.web.charts import Bar, heat_map, money_bars, nice


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 1), (0.0003, 0.0005), (1, 1), (1.01, 2), (23, 25), (99, 100), (12_345, 20_000)],
)
def test_the_next_round_number(value, expected) -> None:
    assert nice(value) == pytest.approx(expected)


def test_each_bar_says_what_it_shows() -> None:
    chart = str(money_bars([Bar("2026-01-31", 1.5, 2.0), Bar("<b>", 0, 0)], "Costs & more"))

    assert "2026-01-31: paid $1.50, saved $2.00" in chart
    assert 'aria-label="Costs &amp; more"' in chart
    assert "<b>" not in chart


def test_no_bar_at_all() -> None:
    assert "<rect" not in money_bars([], "nothing")


def test_one_odd_batch_does_not_make_the_others_alike() -> None:
    cells: list[list[float | None]] = [[60.0 * (hour + 1) for hour in range(24)] for _ in range(7)]
    cells[0][0] = 0.5
    cells[1][1] = 1e6

    levels = re.findall(r'class="cell (h\d)"', heat_map(cells, "tide"))

    assert len(levels) == 168
    assert set(levels) == {f"h{level}" for level in range(6)}


def test_hours_without_a_batch() -> None:
    chart = heat_map([[None] * 24 for _ in range(7)], "tide")

    assert chart.count("cell none") == 168
    assert "Mon 0:00 UTC: no batch" in chart
