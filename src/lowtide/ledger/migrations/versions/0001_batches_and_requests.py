"""The first tables: batches and requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "lowtide_batches",
        sa.Column("id", _ID, nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("state", _ID, nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("sealed_at", sa.Double(), nullable=False),
        sa.Column("recorded_at", sa.Double(), nullable=False),
        sa.Column("uploaded_at", sa.Double(), nullable=True),
        sa.Column("submitting_at", sa.Double(), nullable=True),
        sa.Column("submitted_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("fetched_at", sa.Double(), nullable=True),
        sa.Column("delivered_at", sa.Double(), nullable=True),
        sa.Column("input_file_id", sa.Text(), nullable=True),
        sa.Column("output_file_id", sa.Text(), nullable=True),
        sa.Column("error_file_id", sa.Text(), nullable=True),
        sa.Column("provider_batch_id", _ID, nullable=True),
        sa.Column("provider_status", sa.Text(), nullable=True),
        sa.Column("completed", sa.Integer(), nullable=True),
        sa.Column("failed", sa.Integer(), nullable=True),
        sa.Column("expected_end", sa.Double(), nullable=True),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("next_at", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("parent", _ID, nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lowtide_batches")),
        sa.UniqueConstraint("provider_batch_id", name=op.f("uq_lowtide_batches_provider_batch_id")),
    )
    op.create_index(
        op.f("ix_lowtide_batches_lane_ended_at"),
        "lowtide_batches",
        ["lane", "ended_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_lowtide_batches_state_next_at"),
        "lowtide_batches",
        ["state", "next_at"],
        unique=False,
    )
    op.create_table(
        "lowtide_requests",
        sa.Column("custom_id", _ID, nullable=False),
        sa.Column("task_id", _ID, nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("batch_id", _ID, nullable=False),
        sa.Column("state", _ID, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("provider_request_id", sa.Text(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=True),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cost", sa.Double(), nullable=True),
        sa.Column("full_price", sa.Double(), nullable=True),
        sa.Column("claim", sa.Text(), nullable=True),
        sa.Column("claim_until", sa.Double(), nullable=True),
        sa.Column("recorded_at", sa.Double(), nullable=False),
        sa.Column("done_at", sa.Double(), nullable=True),
        sa.Column("deadline", sa.Double(), nullable=True),
        sa.Column("escalate_at", sa.Double(), nullable=True),
        sa.Column("tier", sa.Text(), nullable=True),
        sa.Column("wasted", sa.Double(), nullable=True),
        sa.Column("tenant", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["lowtide_batches.id"], name=op.f("fk_lowtide_requests_batch_id")
        ),
        sa.PrimaryKeyConstraint("custom_id", name=op.f("pk_lowtide_requests")),
    )
    op.create_index(
        op.f("ix_lowtide_requests_batch_id_state_custom_id"),
        "lowtide_requests",
        ["batch_id", "state", "custom_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_lowtide_requests_state_escalate_at"),
        "lowtide_requests",
        ["state", "escalate_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_lowtide_requests_task_id"), "lowtide_requests", ["task_id"], unique=False
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_lowtide_requests_task_id"), table_name="lowtide_requests")
    op.drop_index(op.f("ix_lowtide_requests_state_escalate_at"), table_name="lowtide_requests")
    op.drop_index(
        op.f("ix_lowtide_requests_batch_id_state_custom_id"), table_name="lowtide_requests"
    )
    op.drop_table("lowtide_requests")
    op.drop_index(op.f("ix_lowtide_batches_state_next_at"), table_name="lowtide_batches")
    op.drop_index(op.f("ix_lowtide_batches_lane_ended_at"), table_name="lowtide_batches")
    op.drop_table("lowtide_batches")
