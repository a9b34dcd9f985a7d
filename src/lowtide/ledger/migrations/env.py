"""Alembic's entry: runs the migrations on the connection that `migrate` holds."""

from __future__ import annotations

from alembic import context

from lowtide.ledger.migrate import VERSION_TABLE
from lowtide.ledger.tables import METADATA

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=METADATA, version_table=VERSION_TABLE)
context.run_migrations()
