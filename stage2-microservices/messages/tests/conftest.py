"""Fixtures: app → client → auth, on a migrated database of their own; pushes go nowhere."""

import pytest

pytest_plugins = ["common.tests.fixtures"]


@pytest.fixture
def environ(environ, database_url):
    return {**environ, "DATABASE_URL": database_url, "REDIS_URL": "redis://127.0.0.1:1/0"}


@pytest.fixture
def queued(monkeypatch):
    """The ids of the messages whose expansion was queued."""
    ids = []
    monkeypatch.setattr("parley.tasks.queue_expansion", ids.append)
    return ids
