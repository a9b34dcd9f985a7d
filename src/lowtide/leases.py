"""Holding what a step works on: leases of batches and claims of requests, renewed meanwhile."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celery.utils.log import get_logger

from lowtide import failpoints
from lowtide.errors import LedgerUnavailable, StateError

if TYPE_CHECKING:
    from lowtide.ledger import ClaimedRow, Lease
    from lowtide.runtime import Runtime

logger = get_logger(__name__)
_RENEWALS_A_LEASE = 3


@dataclass(frozen=True, slots=True)
class Claim:
    """Requests that this run of a step alone may finish.

    Attributes:
        token: Fences what is written for them; no other run has it.
        rows: The requests; those that others hold, or that have their outcome, are not among
            them.
        runs: Whether the claim surely still runs. A process that stood still may have lost it.
    """

    token: str
    rows: Sequence[ClaimedRow]
    runs: Callable[[], bool] = lambda: True


@contextmanager
def held(rt: Runtime, batch_id: str) -> Iterator[Lease]:
    """Leases the batch, renews the lease until the block ends, then gives it back.

    A process that is stopped for longer than its lease loses it: what it then writes is refused
    with `Superseded`.

    Raises:
        StateError: Another replica holds the batch; its timer brings it back if that one dies.
    """
    ttl = rt.settings.lease
    lease = rt.ledger.lease(batch_id, rt.owner, ttl)
    if lease is None:
        raise taken(batch_id)
    try:
        with _renewed(lambda: rt.ledger.renew(lease, ttl), ttl, f"lease of {batch_id}"):
            yield lease
    finally:
        rt.ledger.release(lease)


def taken(batch_id: str) -> StateError:
    """The error of a step that another replica keeps from its batch."""
    return StateError(f"Batch {batch_id} is held by another replica.", {"batch": batch_id})


@contextmanager
def claimed(rt: Runtime, batch_id: str, custom_ids: Collection[str]) -> Iterator[Claim]:
    """Claims requests of a batch, and renews the claim until the block ends.

    What has no outcome then stays claimed until its lease is over, unless it is given back.
    """
    ttl = rt.settings.lease
    token = f"{rt.owner}:{uuid.uuid4().hex[:12]}"
    until = _ends(rt, ttl)
    rows = rt.ledger.claim(batch_id, custom_ids, token, ttl)
    failpoints.reach("deliver.claimed")
    ids = [row.custom_id for row in rows]

    def extend() -> None:
        nonlocal until
        longer = _ends(rt, ttl)
        if rt.ledger.extend(ids, token, ttl):
            until = longer

    def runs() -> bool:
        steady, wall = until
        return rt.clock.monotonic() < steady and rt.clock.now() < wall

    with _renewed(extend, ttl, f"claim in {batch_id}"):
        yield Claim(token, rows, runs)


def _ends(rt: Runtime, ttl: float) -> tuple[float, float]:
    """When what is claimed now ends, by both clocks: the steady one stands still with a machine
    that sleeps, the other one may be set back.
    """
    return rt.clock.monotonic() + ttl, rt.clock.now() + ttl


@contextmanager
def _renewed(renew: Callable[[], object], ttl: float, what: str) -> Iterator[None]:
    over = threading.Event()

    def keep() -> None:
        while not over.wait(ttl / _RENEWALS_A_LEASE):
            try:
                renew()
            except StateError:
                return  # lost: whatever the step writes now is refused
            except LedgerUnavailable as error:
                logger.warning("The %s was not renewed: %s", what, error)

    keeper = threading.Thread(target=keep, name=what, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
