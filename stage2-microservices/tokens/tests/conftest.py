"""Fixtures: app → client → auth, on a migrated database of their own."""

import pytest

from common.tests.helpers import ISSUES

pytest_plugins = ["common.tests.fixtures"]


@pytest.fixture
def environ(environ, database_url):
    return {**environ, **ISSUES, "DATABASE_URL": database_url}
