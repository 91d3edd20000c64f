"""Alembic's entry point. The connection comes from hfi.feedback.database, with a transaction open: all of an upgrade or nothing."""

from __future__ import annotations

from alembic import context

from hfi.feedback import tables

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=tables.metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
