"""The index of what is to be escalated has those requests alone that are ever to be.

The others went into it, and from state to state in it, for nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_INDEX = "ix_lowtide_requests_state_escalate_at"
_COLUMNS = ["state", "escalate_at"]


def upgrade() -> None:
    op.drop_index(op.f(_INDEX), table_name="lowtide_requests")
    there = sa.text("escalate_at IS NOT NULL")
    op.create_index(
        op.f(_INDEX),
        "lowtide_requests",
        _COLUMNS,
        unique=False,
        sqlite_where=there,
        postgresql_where=there,
    )


def downgrade() -> None:
    op.drop_index(op.f(_INDEX), table_name="lowtide_requests")
    op.create_index(op.f(_INDEX), "lowtide_requests", _COLUMNS, unique=False)
