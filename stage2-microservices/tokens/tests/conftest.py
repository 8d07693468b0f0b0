"""Fixtures: app → client → auth, on a migrated database of their own."""

import pytest

pytest_plugins = ["common.tests.fixtures"]


@pytest.fixture
def environ(environ, database_url):
    return {**environ, "DATABASE_URL": database_url}
