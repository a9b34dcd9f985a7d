"""Forks with an open ledger: `python -m tests.ledger.forks CASE URL`; fails where one does harm."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.synchronize
import random
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from lowtide.clock import SystemClock
from lowtide.ledger import Ledger, Outcome, RequestState
from tests.ledger.support import leased, record

_FORK = multiprocessing.get_context("fork")


def four_claimers(ledger: Ledger) -> None:
    """Four children share out the requests of a batch."""
    ids = [f"t{n}.0.0" for n in range(1000)]
    record(ledger, "b1", ids)
    assert leased(ledger, "b1") is not None  # the pool has connections when it forks
    start = _FORK.Barrier(4)
    pipes, processes = [], []
    for n in range(4):
        mine, theirs = _FORK.Pipe()
        process = _FORK.Process(target=_claim_and_settle, args=(ledger, ids, n, start, theirs))
        process.start()
        pipes.append(mine)
        processes.append(process)

    shares = [pipe.recv() for pipe in pipes if pipe.poll(60)]
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0] * 4
    claimed = [custom_id for share, _ in shares for custom_id in share]
    assert sorted(claimed) == sorted(ids)
    assert sum(settled for _, settled in shares) == 1000
    assert ledger.undelivered("b1") == 0, "the parent's connections outlive its children"


def _claim_and_settle(
    ledger: Ledger,
    ids: list[str],
    n: int,
    start: multiprocessing.synchronize.Barrier,
    pipe: Connection,
) -> None:
    mixed = random.Random(n).sample(ids, len(ids))
    share: list[str] = []
    settled = 0
    start.wait(30)
    for at in range(0, len(mixed), 50):
        # Overlapping slices: what another has locked just now is free, or claimed, later.
        rows = ledger.claim("b1", mixed[at : at + 50], f"p{n}", 600)
        share += [row.custom_id for row in rows]
        outcomes = [Outcome(row.custom_id, RequestState.DELIVERED) for row in rows]
        settled += ledger.settle(f"p{n}", outcomes)
    pipe.send((share, settled))


def fork_in_mid_transaction(ledger: Ledger) -> None:
    """A child reads while its parent has a transaction open."""
    record(ledger, "b1", ["t1.0.0"])
    mine, theirs = _FORK.Pipe()
    with ledger._db.write():
        process = _FORK.Process(target=lambda: theirs.send(ledger.ids("b1")))
        process.start()
        assert mine.poll(30)
    process.join(30)

    assert mine.recv() == {"t1.0.0"}
    assert process.exitcode == 0


def child_leaves_files_open(ledger: Ledger) -> None:
    """A child closes none of the files that it inherited."""
    folder = Path(str(ledger._db.url.database)).parent
    inherited = _open_files(folder)
    mine, theirs = _FORK.Pipe()

    def child() -> None:
        ledger.due()
        gc.collect()
        theirs.send(_open_files(folder))

    process = _FORK.Process(target=child)
    process.start()
    assert mine.poll(30)
    process.join(30)

    assert inherited
    assert inherited < mine.recv()


def _open_files(folder: Path) -> set[int]:
    """Numbers of this process's open files in `folder`."""
    files = psutil.Process().open_files()
    return {file.fd for file in files if Path(file.path).parent == folder}


CASES = {
    each.__name__: each
    for each in (four_claimers, fork_in_mid_transaction, child_leaves_files_open)
}

if __name__ == "__main__":
    made = Ledger(sys.argv[2], SystemClock())
    made.create()
    CASES[sys.argv[1]](made)
    made.close()
