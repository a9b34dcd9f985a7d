"""Attempts: why each request that was sent again had no answer before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "lowtide_attempts",
        sa.Column("custom_id", _ID, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("batch_id", _ID, nullable=False),
        sa.Column("provider_batch_id", sa.Text(), nullable=True),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("custom_id", "attempt", name=op.f("pk_lowtide_attempts")),
    )


def downgrade() -> None:
    op.drop_table("lowtide_attempts")
