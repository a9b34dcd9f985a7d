"""What a worker process has loaded is taken out of the garbage collector's sight."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from lowtide import heap


@pytest.fixture(autouse=True)
def _as_before(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(heap, "_left", 0)
    gc.unfreeze()
    yield
    gc.callbacks.remove(heap._freeze)
    gc.unfreeze()


def test_the_next_few_full_collections_set_aside_what_is_left() -> None:
    heap.keep()
    gc.collect(0)
    assert gc.get_freeze_count() == 0

    gc.collect()
    first = gc.get_freeze_count()
    loaded = [[number] for number in range(1000)]
    gc.collect()

    assert first > len(loaded)
    assert gc.get_freeze_count() >= first + len(loaded)


def test_later_it_collects_as_ever() -> None:
    heap.keep()
    for _ in range(heap._TIMES):
        gc.collect()
    aside = gc.get_freeze_count()
    more = [[number] for number in range(1000)]

    gc.collect()

    assert gc.get_freeze_count() <= aside
    assert len(more) == 1000


def test_a_process_that_is_told_again_sets_aside_once() -> None:
    heap.keep()
    heap.keep()

    assert gc.callbacks.count(heap._freeze) == 1
