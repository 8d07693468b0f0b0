"""Fixtures: app → client → auth. This service has no database, and the tests no message queue."""

import pytest
import socketio

pytest_plugins = ["common.tests.fixtures"]


@pytest.fixture
def environ(environ):
    return {**environ, "REDIS_URL": "redis://127.0.0.1:1/0"}


@pytest.fixture
def make_app(make_app, monkeypatch):
    """The same without a message queue: Flask-SocketIO's test client wants to see all packets itself."""
    monkeypatch.setattr("common.push.MessageQueue", lambda _url: socketio.Manager())
    return make_app
