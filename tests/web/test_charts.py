"""Charts: scales that fit, and words for those who cannot see them."""

from __future__ import annotations

import re
import statistics

import pytest

from worker.web.charts import Bar, heat_map, money_bars, nice
from worker.web.pages.tide import slow


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


@pytest.mark.parametrize(
    ("took", "within"),
    [([7.0], 7.0), ([9.0, 11.0], 11.0), ([float(n) for n in range(1, 101)], 95.0)],
)
def test_nineteen_of_twenty_took_no_longer(took: list[float], within: float) -> None:
    assert slow(took) == within
    assert statistics.median(took) <= within


@pytest.mark.parametrize(
    ("cost", "labels"),
    [
        (0.00008, ["$0", "$0.000050", "$0.000100"]),
        (0.17, ["$0", "$0.1000", "$0.2000"]),
        (1800.0, ["$0", "$1,000.00", "$2,000.00"]),
    ],
)
def test_the_axis_tells_money_and_has_room_for_it(cost: float, labels: list[str]) -> None:
    chart = str(money_bars([Bar("2026-01-31", cost, 0.0)], "Costs"))

    found = re.findall(r'<text x="([\d.]+)" y="[\d.]+">([^<]+)</text>', chart)

    assert [label for _, label in found] == labels
    # On the right, beside the last day, which is what a narrow screen shows.
    assert all(float(x) + 7.5 * len(label) <= 1060 for x, label in found)
    column = re.search(r'class="paid" x="([\d.]+)" width="([\d.]+)"', chart)
    assert column is not None
    assert float(column[1]) + float(column[2]) < float(found[0][0])
