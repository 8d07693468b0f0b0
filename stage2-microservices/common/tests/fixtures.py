"""Fixtures for the tests of every service: app → client → auth, with a stand-in for all other services.

A pytest plugin that each conftest.py names.
"""

import logging
import os
import shutil
import subprocess
import sys

import pytest
import redis

from common.database import db
from common.tests.helpers import CHECKS, ISSUES, PRIVATE_KEY, Auth, Others, Redis

# What every service is configured with. Nobody listens at that address: the stand-in answers instead.
OWN = {
    "SERVICE": "service",
    "INSTANCE": "service_v1_test",
    "INTERNAL_URL": "http://127.0.0.1:1",
    **CHECKS,
}


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    server = Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server):
    """The URL of an empty Redis."""
    with redis.Redis(port=redis_server.port) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def code(pytestconfig):
    """The folder with the service's code, and beside it common/."""
    return pytestconfig.rootpath


@pytest.fixture(scope="session")
def flask_db(code):
    """Return a function that runs `flask db …` of the service."""

    def flask_db(action, database_url):
        settings = {**OWN, **ISSUES, "DATABASE_URL": database_url, "REDIS_URL": "redis://unused"}
        environ = {**os.environ, **settings, "PYTHONPATH": str(code.parent)}
        command = [sys.executable, "-m", "flask", "--app", "parley", "db", *action.split()]
        subprocess.run(command, cwd=code, env=environ, check=True, timeout=30, capture_output=True)

    return flask_db


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory, flask_db):
    """A database that `flask db upgrade` has made, once for all tests."""
    path = tmp_path_factory.mktemp("database") / "parley.db"
    flask_db("upgrade", f"sqlite:///{path}")
    return path


@pytest.fixture
def database_url(migrated_database, tmp_path):
    """The URL of an empty database."""
    return f"sqlite:///{shutil.copy(migrated_database, tmp_path / 'parley.db')}"


@pytest.fixture
def environ():
    """The environment that the application is configured from; a service with stores adds where they are."""
    return dict(OWN)


@pytest.fixture
def create_app():
    """The function that is tested: from an environment to an application."""
    from parley import create_app

    return create_app


@pytest.fixture
def make_app(create_app, others):
    """Return a function that makes an application; each is closed at the end, or Python would warn about it."""
    apps = []

    def make_app(environ):
        pytests_own = [handler for handler in logging.root.handlers if not handler.filters]
        apps.append(create_app(environ))  # puts its log handler in the place of all others
        logging.root.handlers += pytests_own
        return apps[-1]

    yield make_app
    for app in apps:
        if "sqlalchemy" in app.extensions:
            with app.app_context():
                db.session.remove()
                db.engine.dispose()


@pytest.fixture
def app(make_app, environ):
    return make_app(environ)


@pytest.fixture
def private_key():
    """The key that tokens are signed with."""
    return PRIVATE_KEY


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def auth(app):
    return Auth(app)


@pytest.fixture
def ann():
    """Ann's id."""
    return 1


@pytest.fixture
def bob():
    """Bob's id."""
    return 2


@pytest.fixture
def pushed(monkeypatch):
    """What would go to the browsers: a list of (class, model)."""
    events = []

    def emit(_queue, _event, data, namespace):
        events.append((data["class"], data["model"]))

    monkeypatch.setattr("common.push.MessageQueue.emit", emit)
    return events


@pytest.fixture
def others(monkeypatch):
    """The stand-in for all other services."""
    others = Others()
    monkeypatch.setattr("common.services.Client.send", lambda _client, *call, **options: others.send(*call, **options))
    return others
