"""When to look again and when to try again."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from lowtide.decide import backoff, expected_end, halves, next_poll

times = st.floats(0, 1e7, allow_nan=False)


@given(times, times, st.none() | times, st.floats(0.1, 60), st.floats(60, 3600))
def test_the_next_poll_is_always_within_its_bounds(now, age, end, shortest, longest):
    at = next_poll(now, now - age, end, shortest=shortest, longest=longest)

    assert shortest - 1e-6 <= at - now <= longest + 1e-6


def test_polls_of_a_day_are_few():
    now, calls = 0.0, 0
    while now < 86_400:
        now = next_poll(now, 0.0, None, shortest=5, longest=1_800)
        calls += 1

    assert calls < 86_400 / 15 / 50


def test_polls_come_closer_together_before_the_expected_end():
    far = next_poll(3_600, 0, 7_200, shortest=1, longest=3_600) - 3_600
    near = next_poll(7_100, 0, 7_200, shortest=1, longest=3_600) - 7_100

    assert near < far


def test_polls_stay_close_together_for_a_while_after_the_expected_end():
    past = next_poll(7_300, 0, 7_200, shortest=1, longest=3_600) - 7_300
    long_past = next_poll(12_000, 0, 7_200, shortest=1, longest=3_600) - 12_000

    assert past < 7_300 * 0.03
    assert long_past > past


def test_an_end_is_expected_only_after_some_experience():
    assert expected_end(100, [10, 20]) is None
    assert expected_end(100, [10, 20, 90]) == 120


@given(st.integers(1, 10_000), st.floats(0.1, 60))
def test_backoff_grows_and_stays_bounded(attempt, first):
    wait = backoff(attempt, first, jitter=random.Random(attempt))

    assert 0 < wait <= 750


@given(st.lists(st.text(), min_size=2, unique=True))
def test_halves_lose_nobody_and_both_shrink(ids):
    left, right = halves(ids)

    assert [*left, *right] == ids
    assert left
    assert right
