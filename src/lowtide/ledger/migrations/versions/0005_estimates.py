"""Estimates: what a batch that is sent is expected to cost, for each of its tasks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("lowtide_batches", sa.Column("estimate", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("lowtide_batches", "estimate")
