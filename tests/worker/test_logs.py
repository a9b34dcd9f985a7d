"""The log of a stack: kept in a file that one stack at a time begins anew."""

from __future__ import annotations

from pathlib import Path

from worker.logs import PrefixedLog


def test_a_second_stack_leaves_the_log_of_the_one_that_runs(tmp_path: Path) -> None:
    path = tmp_path / "up.log"
    running = PrefixedLog(None, path)
    running("worker-1", "ready")

    refused = PrefixedLog(None, path)
    refused("lowtide", "it runs already")
    refused.close()
    running("worker-1", "still here")

    assert [line.split("| ")[1] for line in running.tail()] == [
        "ready",
        "it runs already",
        "still here",
    ]
    running.close()


def test_the_next_stack_begins_it_anew(tmp_path: Path) -> None:
    path = tmp_path / "up.log"
    first = PrefixedLog(None, path)
    first("worker-1", "ready")
    first.close()

    second = PrefixedLog(None, path)

    assert second.tail() == []
    second.close()
