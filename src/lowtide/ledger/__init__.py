"""The ledger: what is sent to providers, what came of it, and what it cost."""

from lowtide.ledger.attempts import Attempt
from lowtide.ledger.habits import Later
from lowtide.ledger.ledger import Ledger
from lowtide.ledger.money import By
from lowtide.ledger.outbox import Backlog, Message, NewMessage, Postponed
from lowtide.ledger.purge import Purged
from lowtide.ledger.requeue import new_batch_id
from lowtide.ledger.rows import (
    FORMAT,
    BatchFields,
    BatchRow,
    ClaimedRow,
    CostRow,
    Due,
    Lease,
    NewBatch,
    NewRequest,
    Outcome,
    Recorded,
    RequestRow,
    Totals,
    Turnaround,
)
from lowtide.ledger.sharing import SHARED
from lowtide.ledger.spending import Cap, Load
from lowtide.ledger.transitions import FINAL, OPEN, OUTCOMES, BatchState, RequestState

__all__ = [
    "FINAL",
    "FORMAT",
    "OPEN",
    "OUTCOMES",
    "SHARED",
    "Attempt",
    "Backlog",
    "BatchFields",
    "BatchRow",
    "BatchState",
    "By",
    "Cap",
    "ClaimedRow",
    "CostRow",
    "Due",
    "Later",
    "Lease",
    "Ledger",
    "Load",
    "Message",
    "NewBatch",
    "NewMessage",
    "NewRequest",
    "Outcome",
    "Postponed",
    "Purged",
    "Recorded",
    "RequestRow",
    "RequestState",
    "Totals",
    "Turnaround",
    "new_batch_id",
]
