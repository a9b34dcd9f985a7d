"""The tables of the ledger.

They have a registry of their own, so that an app's `SQLModel.metadata` does not hold them, and
names of their own, so that they can live in an app's database.
"""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import BigInteger, Column, Double, Index, LargeBinary, MetaData, Table, Text, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class _Base(SQLModel, registry=registry(metadata=METADATA)):
    pass


# Ids are compared byte by byte: faster than a language's order, and an operating system
# that changes its language's order cannot spoil the index.
_ID: Any = Text().with_variant(Text(collation="C"), "postgresql")


def _double(*, null: bool = True) -> Any:
    return Field(sa_column=Column(Double, nullable=null))


def _index_of_some(*names: str, having: str) -> Index:
    """An index of those rows alone that have a value in one of its columns."""
    there = text(f"{having} IS NOT NULL")
    return Index(None, *names, sqlite_where=there, postgresql_where=there)


class Batch(_Base, table=True):
    """One batch; see `rows.BatchRow` for what the columns mean."""

    __tablename__ = "lowtide_batches"
    __table_args__ = (Index(None, "state", "next_at"), Index(None, "lane", "ended_at"))

    id: str = Field(sa_type=_ID, primary_key=True)
    lane: str = Field(sa_type=Text)
    account: str = Field(sa_type=Text)
    endpoint: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    state: str = Field(sa_type=_ID)
    requests: int
    bytes: int = Field(sa_type=BigInteger)
    tokens: int = Field(sa_type=BigInteger)
    sealed_at: float = _double(null=False)
    recorded_at: float = _double(null=False)
    uploaded_at: float | None = _double()
    submitting_at: float | None = _double()
    submitted_at: float | None = _double()
    ended_at: float | None = _double()
    fetched_at: float | None = _double()
    delivered_at: float | None = _double()
    input_file_id: str | None = Field(sa_type=Text)
    output_file_id: str | None = Field(sa_type=Text)
    error_file_id: str | None = Field(sa_type=Text)
    provider_batch_id: str | None = Field(sa_type=_ID, unique=True)
    provider_status: str | None = Field(sa_type=Text)
    completed: int | None
    failed: int | None
    expected_end: float | None = _double()
    expires_at: float | None = _double()
    next_at: float | None = _double()
    reason: str | None = Field(sa_type=Text)
    parent: str | None = Field(sa_type=_ID)
    fence: int
    lease_owner: str | None = Field(sa_type=Text)
    lease_until: float | None = _double()
    version: int
    waits_for: str | None = Field(sa_type=Text)
    estimate: str | None = Field(sa_type=Text)


class Request(_Base, table=True):
    """One request; see `rows.RequestRow` for what the columns mean.

    `blob` comes last of what every row has: SQLite reads a row from its front, and a blob may
    span many pages. What is NULL costs nothing behind it either.
    """

    __tablename__ = "lowtide_requests"
    __table_args__ = (
        Index(None, "batch_id", "state", "custom_id"),
        _index_of_some("state", "escalate_at", having="escalate_at"),
        _index_of_some("share_key", "state", "custom_id", having="share_key"),
        _index_of_some("shares", having="shares"),
    )

    custom_id: str = Field(sa_type=_ID, primary_key=True)
    task_id: str = Field(sa_type=_ID, index=True)
    task: str = Field(sa_type=Text)
    batch_id: str = Field(sa_type=_ID, foreign_key="lowtide_batches.id")
    state: str = Field(sa_type=_ID)
    attempt: int
    tokens: int = Field(sa_type=BigInteger)
    status_code: int | None
    error_code: str | None = Field(sa_type=Text)
    error_message: str | None = Field(sa_type=Text)
    provider_request_id: str | None = Field(sa_type=Text)
    input_tokens: int | None = Field(sa_type=BigInteger)
    cached_tokens: int | None = Field(sa_type=BigInteger)
    output_tokens: int | None = Field(sa_type=BigInteger)
    reasoning_tokens: int | None = Field(sa_type=BigInteger)
    cost: float | None = _double()
    full_price: float | None = _double()
    claim: str | None = Field(sa_type=Text)
    claim_until: float | None = _double()
    recorded_at: float = _double(null=False)
    done_at: float | None = _double()
    deadline: float | None = _double()
    escalate_at: float | None = _double()
    tier: str | None = Field(sa_type=Text)
    wasted: float | None = _double()
    tenant: str | None = Field(sa_type=Text)
    version: int
    blob: bytes = Field(sa_type=LargeBinary)
    share_key: str | None = Field(sa_type=_ID)
    shares: str | None = Field(sa_type=_ID)


class Attempt(_Base, table=True):
    """One failed attempt of a request; see `attempts.Attempt` for what the columns mean."""

    __tablename__ = "lowtide_attempts"

    custom_id: str = Field(sa_type=_ID, primary_key=True)
    attempt: int = Field(primary_key=True)
    at: float = _double(null=False)
    batch_id: str = Field(sa_type=_ID)
    provider_batch_id: str | None = Field(sa_type=Text)
    status_code: int | None
    code: str | None = Field(sa_type=Text)
    message: str | None = Field(sa_type=Text)


class OutboxEntry(_Base, table=True):
    """One result that a destination is to be told; see `outbox.Message`."""

    __tablename__ = "lowtide_outbox"
    __table_args__ = (Index(None, "destination", "next_at"),)

    destination: str = Field(sa_type=_ID, primary_key=True)
    custom_id: str = Field(sa_type=_ID, primary_key=True)
    batch_id: str | None = Field(sa_type=_ID)
    created_at: float = _double(null=False)
    next_at: float = _double(null=False)
    attempts: int
    claim: str | None = Field(sa_type=Text)
    error: str | None = Field(sa_type=Text)
    blob: bytes = Field(sa_type=LargeBinary)


BATCHES = cast(Table, Batch.__table__)  # type: ignore[attr-defined]
REQUESTS = cast(Table, Request.__table__)  # type: ignore[attr-defined]
ATTEMPTS = cast(Table, Attempt.__table__)  # type: ignore[attr-defined]
OUTBOX = cast(Table, OutboxEntry.__table__)  # type: ignore[attr-defined]
