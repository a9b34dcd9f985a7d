"""Holding a batch for one step: a lease that is renewed while the step runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from celery.utils.log import get_logger

from lowtide.errors import LedgerUnavailable, StateError

if TYPE_CHECKING:
    from lowtide.ledger import Lease, Ledger
    from lowtide.runtime import Runtime

logger = get_logger(__name__)
_RENEWALS_A_LEASE = 3


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
        raise StateError(f"Batch {batch_id} is held by another replica.", {"batch": batch_id})
    over = threading.Event()
    renewer = threading.Thread(
        target=_renew, args=(rt.ledger, lease, ttl, over), name=f"lease-{batch_id}", daemon=True
    )
    renewer.start()
    try:
        yield lease
    finally:
        over.set()
        renewer.join()
        rt.ledger.release(lease)


def _renew(ledger: Ledger, lease: Lease, ttl: float, over: threading.Event) -> None:
    while not over.wait(ttl / _RENEWALS_A_LEASE):
        try:
            ledger.renew(lease, ttl)
        except StateError:
            return  # lost: whatever the step writes now is refused
        except LedgerUnavailable as error:
            logger.warning("Lease of %s not renewed: %s", lease.batch_id, error)
