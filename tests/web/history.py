"""A ledger with a past: batches over some days, answered, failed and still on their way."""

from __future__ import annotations

import math
import random

from lowtide.clock import SimulatedClock
from lowtide.lane import Lane
from lowtide.ledger import Ledger, NewBatch, NewRequest, Outcome, RequestState

CHAT = Lane("default", "/v1/chat/completions", "gpt-5-mini")
EMBED = Lane("default", "/v1/embeddings", "text-embedding-3-small")
DAY = 86_400.0


def record_batch(
    ledger: Ledger,
    batch_id: str,
    *,
    lane: Lane = CHAT,
    task: str = "tasks.summarize",
    requests: int = 20,
    at: float,
    share_key: str | None = None,
) -> list[str]:
    """A batch in state RECORDED; its requests' ids. With a `share_key` they share one line."""
    ids = [f"{batch_id}-{n}.0.0" for n in range(requests)]
    rows = [
        NewRequest(
            name, name.split(".")[0], task, b"\x01" + name.encode(), 300, share_key=share_key
        )
        for name in ids
    ]
    ledger.record(NewBatch(batch_id, lane, bytes=requests * 900, sealed_at=at), rows)
    return ids


def deliver_batch(
    ledger: Ledger,
    clock: SimulatedClock,
    batch_id: str,
    ids: list[str],
    *,
    took: float,
    failed: int = 0,
) -> None:
    """Takes a RECORDED batch to DELIVERED; the first `failed` requests with errors."""
    lease = ledger.lease(batch_id, "history", 10 * DAY)
    assert lease is not None
    ledger.move(lease, "UPLOADED", input_file_id=f"file-{batch_id}")
    clock.advance(2)
    ledger.move(lease, "SUBMITTING")
    ledger.move(lease, "SUBMITTED", provider_batch_id=f"batch_{batch_id}")
    clock.advance(took)
    ledger.move(lease, "ENDED", provider_status="completed")
    clock.advance(3)
    ledger.move(lease, "FETCHED")
    ledger.release(lease)
    ledger.claim(batch_id, ids, "history", 60)
    ledger.settle("history", [_outcome(name, n < failed) for n, name in enumerate(ids)], ids)
    clock.advance(1)
    assert ledger.close_if_done(batch_id)


def past(ledger: Ledger, clock: SimulatedClock, until: float, *, days: int = 20) -> None:
    """Some batches a day, slower in the afternoon, until `until`."""
    rng = random.Random(7)
    number = 0
    while clock.now() < until - 3600:
        hour = clock.now() % DAY / 3600
        busy = 1 + 6 * math.exp(-(((hour - 15) / 4) ** 2))
        lane, task = (EMBED, "tasks.embed") if number % 4 == 3 else (CHAT, "tasks.summarize")
        batch_id = f"b{number:020d}"
        ids = record_batch(
            ledger, batch_id, lane=lane, task=task, requests=rng.randint(5, 40), at=clock.now()
        )
        took = min(600 * busy * rng.uniform(0.7, 1.3), until - clock.now() - 60)
        deliver_batch(ledger, clock, batch_id, ids, took=took, failed=number % 7 == 0)
        clock.advance(rng.uniform(0.3, 1.2) * days * 300)
        number += 1


def _outcome(custom_id: str, failed: bool) -> Outcome:
    if failed:
        return Outcome(
            custom_id,
            RequestState.FAILED,
            status_code=400,
            error_code="invalid_prompt",
            error_message="The prompt is refused.",
        )
    return Outcome(
        custom_id,
        RequestState.DELIVERED,
        status_code=200,
        input_tokens=300,
        cached_tokens=0,
        output_tokens=150,
        reasoning_tokens=20,
        cost=0.0004,
        full_price=0.0008,
        tier="batch",
    )
