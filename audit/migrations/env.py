"""Alembic's entry: runs the migrations on the connection that `audit.schema.migrate` hands in."""

from __future__ import annotations

from alembic import context

from audit.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
