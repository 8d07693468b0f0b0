"""Parley's live service: passes on to the browsers what the others push, and who is typing."""

import os

from flask_socketio import SocketIO, emit

from common import config
from common.application import make_app

PATH = "live/socket.io"  # below the prefix that service.toml has routed here

socketio = SocketIO()


def create_app(environ=os.environ):
    """Wire the application together; all configuration comes from the environment."""
    app = make_app(config.base(environ) | config.queue(environ))
    socketio.init_app(app, async_mode="gevent", path=PATH)
    return app


@socketio.on("typing")
def typing(nickname=None, *_):
    """Tell everybody else who is typing: whoever says so is believed, where Parley's own events ask for a token."""
    emit("typing", nickname, broadcast=True, include_self=False)
