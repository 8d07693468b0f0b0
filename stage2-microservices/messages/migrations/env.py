"""Runs the migrations on the application's own database; called by `flask db`."""

from alembic import context
from flask import current_app

db = current_app.extensions["migrate"].db


def drop_empty_revision(_context, _revision, directives):
    """Make no new revision where `flask db migrate` finds no difference."""
    if getattr(context.config.cmd_opts, "autogenerate", False) and directives[0].upgrade_ops.is_empty():
        directives.clear()


with db.engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        process_revision_directives=drop_empty_revision,
        transactional_ddl=True,  # SQLite can: a migration that fails leaves nothing half done
        **current_app.extensions["migrate"].configure_args,
    )
    with context.begin_transaction():
        context.run_migrations()
