"""Alembic's entry: runs the migrations on the connection that :mod:`agency.store.schema` hands over.

The connection is in a transaction already, so that a migration happens as a whole or not at all, on SQLite too.
"""

from __future__ import annotations

from alembic import context

from agency.store.models import Row

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Row.metadata, transactional_ddl=True
)
context.run_migrations()
