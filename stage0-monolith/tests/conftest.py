"""Fixtures: app → client → auth, on a migrated database of their own and a private Redis."""

import base64
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import kombu.pools
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from parley import create_app
from parley.auth import issue_token
from parley.database import db, write_transaction
from parley.models.user import User

STAGE = Path(__file__).parent.parent
PRIVATE_KEY = Ed25519PrivateKey.generate()  # a new one for each run of the tests


def encode(key):
    """Write a key as a setting has it: base64url without padding."""
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


KEYS = {
    "JWT_PRIVATE_KEY": encode(PRIVATE_KEY.private_bytes_raw()),
    "JWT_PUBLIC_KEY": encode(PRIVATE_KEY.public_key().public_bytes_raw()),
}
HASH_OF_NOTHING = "scrypt:32768:8:1$salt$hash"  # of the kind that Werkzeug makes; matches no password


class Redis:
    """A redis-server of our own, on a free port of the loopback interface."""

    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = None

    def start(self):
        """Start it, and wait until it answers."""
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", self.folder]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 5
        with redis.Redis(port=self.port, retry=None) as client:
            while True:
                try:
                    return client.ping()
                except redis.ConnectionError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)

    def stop(self):
        """Kill it."""
        self.process.kill()
        self.process.wait(timeout=5)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    server = Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory):
    """A database that `flask db upgrade` has made, once for all tests."""
    path = tmp_path_factory.mktemp("database") / "parley.db"
    settings = {"DATABASE_URL": f"sqlite:///{path}", "REDIS_URL": "redis://unused", **KEYS}
    environ = {**os.environ, **settings}
    command = [sys.executable, "-m", "flask", "--app", "parley", "db", "upgrade"]
    subprocess.run(command, cwd=STAGE, env=environ, check=True, timeout=30, capture_output=True)
    return path


@pytest.fixture
def environ(redis_server, migrated_database, tmp_path):
    """The environment that the application is configured from."""
    shutil.copy(migrated_database, tmp_path / "parley.db")
    with redis.Redis(port=redis_server.port) as client:
        client.flushall()
    return {
        "INSTANCE": "monolith_v1_test",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'parley.db'}",
        "REDIS_URL": redis_server.url,
        **KEYS,
    }


@pytest.fixture
def make_app():
    """Return a function that makes an application; each is closed at the end, or Python would warn about it."""
    apps = []

    def make_app(environ):
        pytests_own = [handler for handler in logging.root.handlers if not handler.filters]
        apps.append(create_app(environ))  # puts its log handler in the place of all others
        logging.root.handlers += pytests_own
        return apps[-1]

    yield make_app
    for app in apps:
        with app.app_context():
            db.session.remove()
            db.engine.dispose()
        app.extensions["presence"].close()
        app.extensions["attempts"][0].storage.storage.connection_pool.disconnect()
    kombu.pools.reset()


@pytest.fixture
def plain_app(make_app, environ):
    return make_app(environ)


@pytest.fixture
def app(plain_app):
    return plain_app


@pytest.fixture
def private_key():
    """The key that tokens are signed with."""
    return PRIVATE_KEY


@pytest.fixture
def client(app):
    return app.test_client()


class Auth:
    """Users and their tokens, made without hashing a password."""

    def __init__(self, app):
        self.app = app

    def user(self, nickname="ann"):
        """Insert a user and return its id."""
        with self.app.app_context():
            user = User(created_at=1, updated_at=1, last_seen_at=1, nickname=nickname, password_hash=HASH_OF_NOTHING)
            with write_transaction() as session:
                session.add(user)
            return user.id

    def token(self, user_id, issued_at=None):
        """Return a token of a user."""
        return issue_token(user_id, issued_at or time.time(), PRIVATE_KEY)

    def headers(self, user_id, **kwargs):
        """Return the header that signs a request."""
        return {"Authorization": f"Bearer {self.token(user_id, **kwargs)}"}


@pytest.fixture
def auth(app):
    return Auth(app)


@pytest.fixture
def ann(auth):
    """Ann's id."""
    return auth.user("ann")


@pytest.fixture
def pushed(monkeypatch):
    """What would go to the browsers: a list of (class, model)."""
    events = []

    def emit(_queue, _event, data, namespace):
        events.append((data["class"], data["model"]))

    monkeypatch.setattr("parley.push.MessageQueue.emit", emit)
    return events


@pytest.fixture
def queued(monkeypatch):
    """The ids of the messages whose expansion was queued."""
    ids = []
    monkeypatch.setattr("parley.tasks.queue_expansion", ids.append)
    return ids
