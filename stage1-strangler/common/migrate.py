"""What the migrations of each service do, in their env.py: run on the service's own database, called by `flask db`."""

from alembic import context
from flask import current_app

LOCK_WAIT = 30  # seconds; the instances write meanwhile, each for about a millisecond


def run_migrations():
    """Bring the database to the revision that was asked for."""
    db = current_app.extensions["migrate"].db
    # The transaction begins with a read, of the revision: without the lock from its beginning on, it could not write
    # once somebody else has written since.
    with db.engine.connect().execution_options(lock_wait=LOCK_WAIT) as connection:
        if db.engine.dialect.name == "sqlite":
            # Batch mode makes a table anew: that the old one is dropped must not count as deleting its rows.
            connection.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")
        context.configure(
            connection=connection,
            target_metadata=db.metadata,
            process_revision_directives=drop_empty_revision,
            transactional_ddl=True,  # SQLite can: a migration that fails leaves nothing half done
            **current_app.extensions["migrate"].configure_args,
        )
        with context.begin_transaction():
            context.run_migrations()


def drop_empty_revision(_context, _revision, directives):
    """Make no new revision where `flask db migrate` finds no difference."""
    if getattr(context.config.cmd_opts, "autogenerate", False) and directives[0].upgrade_ops.is_empty():
        directives.clear()
