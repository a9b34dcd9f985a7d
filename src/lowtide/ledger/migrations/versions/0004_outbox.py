"""The outbox: results that others than the result backend are to be told."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "lowtide_outbox",
        sa.Column("destination", _ID, nullable=False),
        sa.Column("custom_id", _ID, nullable=False),
        sa.Column("batch_id", _ID, nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("claim", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("destination", "custom_id", name=op.f("pk_lowtide_outbox")),
    )
    op.create_index(
        op.f("ix_lowtide_outbox_destination_next_at"),
        "lowtide_outbox",
        ["destination", "next_at"],
        unique=False,
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_lowtide_outbox_destination_next_at"), table_name="lowtide_outbox")
    op.drop_table("lowtide_outbox")
