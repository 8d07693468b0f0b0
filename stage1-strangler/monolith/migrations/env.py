"""Runs the migrations on the service's own database; called by `flask db`."""

from common.migrate import run_migrations

run_migrations()
