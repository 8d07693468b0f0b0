"""Parley's socketio service: holds the connections of the browsers, and turns their events into calls."""

import os

from common import auth, config, keys, push, revocations, seen
from common.application import make_app

from . import events as events  # its handlers register themselves
from . import socket_server


def create_app(environ=os.environ):
    """Wire the application together; all configuration comes from the environment."""
    app = make_app(config.base(environ) | keys.public_key(environ) | config.queue(environ))
    push.init_app(app)
    socket_server.init_app(app)
    revocations.init_app(app)
    seen.init_app(app)
    auth.init_app(app, is_revoked=revocations.is_revoked, mark_seen=seen.mark_seen)
    return app
