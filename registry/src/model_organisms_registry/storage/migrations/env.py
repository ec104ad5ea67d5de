"""Where Alembic asks which connection and which tables; it runs inside the transaction that `upgrade` was given."""

from __future__ import annotations

from alembic import context

from model_organisms_registry.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a column by copying its table
    transactional_ddl=True,  # true of both databases here: SQLite's BEGIN is ours, not the driver's
)
context.run_migrations()
