"""Many at once: threads, processes, forks and greenlets on one database."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lowtide.clock import SystemClock
from lowtide.errors import StateError, Superseded
from lowtide.ledger import BatchState, Lease, Ledger
from tests.ledger.support import advance, record
from tests.plugins.stack import ROOT

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


def test_four_processes_never_claim_the_same_request(fresh_url: str) -> None:
    by_itself("four_claimers", fresh_url)


def test_a_fork_in_mid_transaction_does_not_stop_the_child(fresh_url: str) -> None:
    by_itself("fork_in_mid_transaction", fresh_url)


def test_a_child_leaves_the_files_of_its_parent_open(tmp_path: Path) -> None:
    """SQLite forbids a child to close what it inherited."""
    by_itself("child_leaves_files_open", f"sqlite:///{tmp_path}/ledger.db")


def by_itself(case: str, url: str) -> None:
    """Runs a case of `forks.py` as a process, which has no threads of other tests to fork with."""
    command = [sys.executable, "-m", "tests.ledger.forks", case, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)

    assert done.returncode == 0, done.stdout + done.stderr


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
        cwd=ROOT,
    )

    assert done.stderr == ""
    assert done.stdout.split() == ["2000", "80"]
