"""What goes into the ledger and what comes out: plain frozen data, bound to no connection.

What is made for each request of a batch is a Struct: a frozen dataclass takes many times as long
to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import msgspec

from lowtide.lane import Lane
from lowtide.ledger.transitions import BatchState, RequestState

FORMAT = 1
"""Format of the blobs that this release writes; kept with every row."""


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A sealed buffer that is to be recorded.

    Attributes:
        id: Our batch id.
        lane: What all of its requests share.
        bytes: Size of the batch file.
        sealed_at: Epoch seconds.
        next_at: Epoch seconds before which nothing is to be done with it, if any.
        reason: Why it waits or exists, for people.
    """

    id: str
    lane: Lane
    bytes: int
    sealed_at: float
    next_at: float | None = None
    reason: str | None = None
    version: int = FORMAT


class NewRequest(msgspec.Struct, frozen=True, gc=False):
    """One line of a batch that is to be recorded. `blob` is `request.pack(...)`, kept verbatim.

    Attributes:
        deadline: When the answer is needed, epoch seconds; None for whenever.
        escalate_at: When it is to be asked of a faster service, if it has no answer by then.
        tenant: Who pays for it, for the cost report.
        share_key: Requests with an equal one wait for one line; None for a line of its own.
    """

    custom_id: str
    task_id: str
    task: str
    blob: bytes
    tokens: int
    deadline: float | None = None
    escalate_at: float | None = None
    tenant: str | None = None
    share_key: str | None = None
    version: int = FORMAT


@dataclass(frozen=True, slots=True)
class Recorded:
    """What `Ledger.record` did.

    Attributes:
        added: Rows that are now in the batch because of this call.
        refused: custom_ids that some other batch holds or held already; not in this batch.
        new: False if the batch was recorded before; then nothing was written.
        joined: custom_id → batch of those that wait there for a line which was on its way
            already; not in this batch.
    """

    added: int
    refused: tuple[str, ...]
    new: bool
    joined: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to take steps with one batch, until another holder is given a higher `fence`."""

    batch_id: str
    fence: int
    owner: str
    until: float


class BatchFields(TypedDict, total=False):
    """What may be noted with a batch when it moves, or without moving. Times: epoch seconds."""

    bytes: int
    uploaded_at: float | None
    submitting_at: float | None
    submitted_at: float | None
    ended_at: float | None
    fetched_at: float | None
    delivered_at: float | None
    input_file_id: str | None
    output_file_id: str | None
    error_file_id: str | None
    provider_batch_id: str | None
    provider_status: str | None
    completed: int | None
    failed: int | None
    expected_end: float | None
    expires_at: float | None
    next_at: float | None
    reason: str | None
    estimate: str | None
    waits_for: str | None


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch as the ledger holds it. Times: epoch seconds, None = not yet.

    Attributes:
        lane: Key of the lane; account, endpoint and model are its parts.
        requests: Rows it was recorded with; some may have moved on to another batch since.
        completed: Requests that the provider counts as answered.
        failed: Requests that the provider counts as failed.
        next_at: Before this nothing is to be done with it.
        parent: The batch that its requests were in before, if they were sent before.
        fence: Number of leases given so far; the holder of the last may write.
        waits_for: What it is held for, where held ones take turns.
        estimate: What it is expected to cost, while it is sent under a spend cap: task → USD, as
            JSON.
    """

    id: str
    lane: str
    account: str
    endpoint: str
    model: str
    state: BatchState
    requests: int
    bytes: int
    tokens: int
    sealed_at: float
    recorded_at: float
    uploaded_at: float | None
    submitting_at: float | None
    submitted_at: float | None
    ended_at: float | None
    fetched_at: float | None
    delivered_at: float | None
    input_file_id: str | None
    output_file_id: str | None
    error_file_id: str | None
    provider_batch_id: str | None
    provider_status: str | None
    completed: int | None
    failed: int | None
    expected_end: float | None
    expires_at: float | None
    next_at: float | None
    reason: str | None
    parent: str | None
    fence: int
    lease_owner: str | None
    lease_until: float | None
    version: int
    waits_for: str | None
    estimate: str | None

    def to_lane(self) -> Lane:
        """The lane as an object, without its share: what its requests have in common."""
        return Lane(self.account, self.endpoint, self.model)


@dataclass(frozen=True, slots=True)
class Due:
    """A batch with something to do: for the sweep that arms timers again.

    Attributes:
        next_at: Epoch seconds; None = at once.
    """

    batch_id: str
    state: BatchState
    next_at: float | None


class ClaimedRow(msgspec.Struct, frozen=True, gc=False):
    """A request that this caller alone may deliver now. `attempt` counts from 1; `may_share`
    says whether others may wait for its line; `was_lost` whether who had claimed it before never
    said what became of it.
    """

    custom_id: str
    blob: bytes
    attempt: int
    may_share: bool = False
    was_lost: bool = False


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of a request. Money in USD; None = unknown.

    Attributes:
        state: DELIVERED, FAILED, REVOKED or CONTINUED.
        full_price: What the same usage costs at the synchronous API.
        tier: Who answered: "batch", "flex" or "standard"; "shared" when another request of the
            same line pays; None without an answer.
    """

    custom_id: str
    state: RequestState
    status_code: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    provider_request_id: str | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: float | None = None
    full_price: float | None = None
    tier: str | None = None


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request as the ledger holds it. Times: epoch seconds; money: USD, None = unknown.

    Attributes:
        share_key: What requests that are the same have in common; None for one that never shares.
        shares: custom_id of the line that it waits for, or waited for; None for its own.
    """

    custom_id: str
    task_id: str
    task: str
    batch_id: str
    state: RequestState
    attempt: int
    tokens: int
    status_code: int | None
    error_code: str | None
    error_message: str | None
    provider_request_id: str | None
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cost: float | None
    full_price: float | None
    claim: str | None
    claim_until: float | None
    recorded_at: float
    done_at: float | None
    deadline: float | None
    escalate_at: float | None
    tier: str | None
    wasted: float | None
    tenant: str | None
    version: int
    share_key: str | None
    shares: str | None
    blob: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CostRow:
    """Usage and money of one task, lane, batch or day (or of all).

    Attributes:
        key: Task name, lane key, batch id or UTC day as "2026-01-31"; "" for all.
        answered: Requests with an outcome that came from an answer (DELIVERED or CONTINUED).
        unpriced: Answered requests whose price is unknown; not in the sums of money.
        saving: `full_price - cost` where both are known, less what was wasted.
        wasted: Paid for answers that came when they were no longer needed; not part of `cost`.
    """

    key: str
    requests: int
    answered: int
    failed: int
    revoked: int
    unpriced: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost: float
    full_price: float
    saving: float
    wasted: float


@dataclass(frozen=True, slots=True)
class Totals:
    """How much there is in each state, and the money of all."""

    batches: dict[BatchState, int]
    requests: dict[RequestState, int]
    money: CostRow


@dataclass(frozen=True, slots=True)
class Turnaround:
    """How long the provider took for one batch. Times: epoch seconds."""

    lane: str
    submitted_at: float
    ended_at: float
    requests: int
