"""Shared lines: which requests are the same, and which of them waits for another's line.

And what a held batch waits for, so that those that wait for the same take turns.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_SAME = "ix_lowtide_requests_share_key_state_custom_id"
_SHARES = "ix_lowtide_requests_shares"


def upgrade() -> None:
    op.add_column("lowtide_requests", sa.Column("share_key", _ID, nullable=True))
    op.add_column("lowtide_requests", sa.Column("shares", _ID, nullable=True))
    _index(_SAME, ["share_key", "state", "custom_id"])
    _index(_SHARES, ["shares"])
    op.add_column("lowtide_batches", sa.Column("waits_for", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("lowtide_batches", "waits_for")
    op.drop_index(op.f(_SHARES), table_name="lowtide_requests")
    op.drop_index(op.f(_SAME), table_name="lowtide_requests")
    op.drop_column("lowtide_requests", "shares")
    op.drop_column("lowtide_requests", "share_key")


def _index(name: str, columns: list[str]) -> None:
    there = sa.text(f"{columns[0]} IS NOT NULL")
    op.create_index(
        op.f(name),
        "lowtide_requests",
        columns,
        unique=False,
        sqlite_where=there,
        postgresql_where=there,
    )
