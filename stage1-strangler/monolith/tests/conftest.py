"""Fixtures: app → client → auth, on a migrated database of their own and a private Redis.

A stand-in answers for tokens, the service that the monolith calls: it is that of stage 2's tests, as most fixtures are.
"""

import kombu.pools
import pytest

from common.database import write_transaction
from common.tests import helpers
from parley.models.sign_out import deliver_sign_outs
from parley.models.user import User

pytest_plugins = ["common.tests.fixtures"]

HASH_OF_NOTHING = "scrypt:32768:8:1$salt$hash"  # of the kind that Werkzeug makes; matches no password


@pytest.fixture
def environ(environ, database_url, redis_url):
    return {**environ, "DATABASE_URL": database_url, "REDIS_URL": redis_url}


@pytest.fixture
def make_app(make_app):
    """The same, and what only the monolith has open is closed."""
    apps = []

    def make_closing(environ):
        apps.append(make_app(environ))
        return apps[-1]

    yield make_closing
    helpers.finish(deliver_sign_outs)  # which a new password begins, beside its request
    for app in apps:
        app.extensions["presence"].close()
        app.extensions["attempts"][0].storage.storage.connection_pool.disconnect()
    kombu.pools.reset()


class Auth(helpers.Auth):
    """Users and their tokens, made without hashing a password."""

    def user(self, nickname="ann"):
        """Insert a user and return its id."""
        with self.app.app_context():
            user = User(created_at=1, updated_at=1, last_seen_at=1, nickname=nickname, password_hash=HASH_OF_NOTHING)
            with write_transaction() as session:
                session.add(user)
            return user.id


@pytest.fixture
def auth(app):
    return Auth(app)


@pytest.fixture
def ann(auth):
    """Ann's id."""
    return auth.user("ann")


@pytest.fixture
def queued(monkeypatch):
    """The ids of the messages whose expansion was queued."""
    ids = []
    monkeypatch.setattr("parley.tasks.queue_expansion", ids.append)
    return ids
