"""Fixtures for what services share: a tiny service that has all of it."""

import pytest

from common.database import db, write_transaction
from common.tests import tiny_service

pytest_plugins = ["common.tests.fixtures"]


@pytest.fixture
def create_app():
    return tiny_service.create_app


@pytest.fixture
def environ(environ, tmp_path):
    return {**environ, "DATABASE_URL": f"sqlite:///{tmp_path / 'parley.db'}", "REDIS_URL": "redis://127.0.0.1:1/0"}


@pytest.fixture
def context(app):
    with app.app_context():
        yield


@pytest.fixture
def cup(context):
    """The id of a thing in the database."""
    db.create_all()
    cup = tiny_service.Thing(name="cup")
    with write_transaction() as session:
        session.add(cup)
    return cup.id
