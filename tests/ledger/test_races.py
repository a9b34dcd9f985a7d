"""Many at once: threads, processes, forks and greenlets on one database."""

from __future__ import annotations

import gc
import multiprocessing
import random
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from lowtide.clock import SystemClock
from lowtide.errors import StateError, Superseded
from lowtide.ledger import BatchState, Lease, Ledger, Outcome, RequestState
from tests.ledger.support import advance, leased, record

THREADS = 8


@pytest.fixture
def clock() -> SystemClock:
    return SystemClock()


def test_one_of_many_threads_gets_the_lease(ledger: Ledger) -> None:
    for n in range(20):
        record(ledger, f"b{n}", [f"t{n}.0.0"])
    start = threading.Barrier(THREADS)

    def take(owner: int) -> list[Lease]:
        start.wait(10)
        return [x for n in range(20) if (x := ledger.lease(f"b{n}", f"w{owner}", 60)) is not None]

    with ThreadPoolExecutor(THREADS) as pool:
        taken = [lease for leases in pool.map(take, range(THREADS)) for lease in leases]

    assert sorted(lease.batch_id for lease in taken) == sorted(f"b{n}" for n in range(20))
    assert {lease.fence for lease in taken} == {1}


def test_only_the_last_of_many_holders_writes(ledger: Ledger) -> None:
    """Leases that run out at once: each thread takes the batch over and tries to move it."""
    record(ledger, "b1", ["t1.0.0"])
    start = threading.Barrier(THREADS)

    def take_over(owner: int) -> int:
        lease = ledger.lease("b1", f"w{owner}", -1.0)
        assert lease is not None
        start.wait(10)
        try:
            ledger.move(lease, "RECORDED", reason=lease.owner)
        except Superseded:
            return 0
        return lease.fence

    with ThreadPoolExecutor(THREADS) as pool:
        wrote = list(pool.map(take_over, range(THREADS)))

    assert sorted(wrote) == [0] * (THREADS - 1) + [THREADS]
    batch = ledger.batch("b1")
    assert batch is not None
    assert batch.fence == THREADS


def test_one_of_many_threads_records_a_batch(ledger: Ledger) -> None:
    ids = [f"t{n}.0.0" for n in range(500)]

    with ThreadPoolExecutor(THREADS) as pool:
        done = list(pool.map(lambda _: record(ledger, "b1", ids), range(THREADS)))

    assert Counter(each.added for each in done) == {500: 1, 0: THREADS - 1}
    assert ledger.undelivered("b1") == 500


def test_a_request_recorded_in_two_batches_at_once_is_in_one(ledger: Ledger) -> None:
    ids = [f"t{n}.0.0" for n in range(500)]
    start = threading.Barrier(THREADS)

    def go(n: int) -> int:
        start.wait(10)
        return record(ledger, f"b{n}", ids).added

    with ThreadPoolExecutor(THREADS) as pool:
        added = list(pool.map(go, range(THREADS)))

    assert sum(added) == 500
    assert sum(ledger.undelivered(f"b{n}") for n in range(THREADS)) == 500


def test_requeues_and_claims_of_the_same_requests_share_them_out(ledger: Ledger) -> None:
    ids = [f"t{n}.0.0" for n in range(400)]
    record(ledger, "b1", ids)
    advance(ledger, "b1", BatchState.FETCHED)

    def go(n: int) -> set[str]:
        mixed = random.Random(n).sample(ids, len(ids))
        if n % 2:
            moved = ledger.requeue("b1", mixed[:300], reason="race")
            return ledger.ids(moved) if moved else set()
        return {row.custom_id for row in ledger.claim("b1", mixed[:100], f"d{n}", 60)}

    with ThreadPoolExecutor(THREADS) as pool:
        shares = list(pool.map(go, range(THREADS)))

    counted = Counter(custom_id for share in shares for custom_id in share)
    assert max(counted.values()) == 1


def test_no_request_is_in_a_file_and_in_another_batch(ledger: Ledger) -> None:
    """A holder reads the lines for its file while another moves some of them away."""
    names = [f"b{n}" for n in range(60)]
    for name in names:
        record(ledger, name, [f"{name}x{n}.0.0" for n in range(3)])

    def submit(name: str) -> set[str]:
        lease = ledger.lease(name, "w1", 60)
        assert lease is not None
        written = {custom_id for chunk in ledger.lines(name) for custom_id, _ in chunk}
        ledger.move(lease, "UPLOADED")
        return written

    def move_away(name: str) -> set[str]:
        try:
            moved = ledger.requeue(name, [f"{name}x1.0.0"], reason="race")
        except StateError:
            return set()
        return ledger.ids(moved) if moved else set()

    with ThreadPoolExecutor(2) as submitters, ThreadPoolExecutor(2) as movers:
        pairs = zip(submitters.map(submit, names), movers.map(move_away, names), strict=True)
        both = [(written, moved) for written, moved in pairs]

    assert all(len(written | moved) == 3 and not written & moved for written, moved in both)


def test_four_processes_never_claim_the_same_request(ledger: Ledger, url: str) -> None:
    ids = [f"t{n}.0.0" for n in range(1000)]
    record(ledger, "b1", ids)
    assert leased(ledger, "b1") is not None  # the pool has connections when it forks
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    pipes, processes = [], []
    for n in range(4):
        mine, theirs = context.Pipe()
        process = context.Process(target=claim_and_settle, args=(ledger, ids, n, start, theirs))
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


def claim_and_settle(
    ledger: Ledger,
    ids: list[str],
    n: int,
    start: multiprocessing.synchronize.Barrier,
    pipe: Connection,
) -> None:
    """In a forked process, with the ledger of the parent."""
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


def test_a_fork_in_mid_transaction_does_not_stop_the_child(ledger: Ledger) -> None:
    record(ledger, "b1", ["t1.0.0"])
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    with ledger._db.write():
        process = context.Process(target=lambda: theirs.send(ledger.ids("b1")))
        process.start()
        assert mine.poll(30)
    process.join(30)

    assert mine.recv() == {"t1.0.0"}
    assert process.exitcode == 0


def test_a_child_leaves_the_files_of_its_parent_open(tmp_path: Path) -> None:
    """SQLite forbids a child to close what it inherited."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", SystemClock())
    ledger.create()
    inherited = open_files(tmp_path)
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()

    def child() -> None:
        ledger.due()
        gc.collect()
        theirs.send(open_files(tmp_path))

    process = context.Process(target=child)
    process.start()
    assert mine.poll(30)
    process.join(30)
    ledger.close()

    assert inherited
    assert inherited < mine.recv()


def open_files(folder: Path) -> set[int]:
    """Numbers of this process's open files in `folder`."""
    files = psutil.Process().open_files()
    return {file.fd for file in files if Path(file.path).parent == folder}


GEVENT = """
    import sys
    from gevent import monkey
    monkey.patch_all()
    import gevent
    from lowtide.clock import SystemClock
    from lowtide.ledger import Ledger
    from tests.ledger.support import new_batch, new_request, record

    ledger = Ledger(sys.argv[1], SystemClock())
    ledger.create()
    record(ledger, "b0", ["t0.0.0"])

    def slowly():
        for n in range(2000):
            if n % 100 == 0:
                gevent.sleep(0.001)  # as when the lines come from Redis
            yield new_request(f"g{n}.0.0")

    def leases():
        return [ledger.lease("b0", "w", -1) for _ in range(20)][-1].fence

    recording = gevent.spawn(lambda: ledger.record(new_batch("b1"), slowly()))
    others = [gevent.spawn(leases) for _ in range(4)]
    done = gevent.joinall([recording, *others], timeout=20, raise_error=True)
    assert len(done) == 5, "greenlets that hold and greenlets that wait stopped each other"
    print(recording.value.added, max(other.value for other in others))
"""


def test_greenlets_of_one_process_wait_for_each_other(fresh_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(GEVENT), fresh_url],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )

    assert done.stderr == ""
    assert done.stdout.split() == ["2000", "80"]
