"""Parley's live service: passes on to the browsers what the others push, and who is typing."""

import os

from flask_socketio import SocketIO

from common import config
from common.application import make_app

PATH = "live/socket.io"  # below the prefix that service.toml has routed here

socketio = SocketIO()


def create_app(environ=os.environ):
    """Wire the application together; all configuration comes from the environment."""
    app = make_app(config.base(environ) | config.queue(environ))
    # TODO 3: the message queue is to bring what others push, and to take along what is emitted here.
    socketio.init_app(app, async_mode="gevent", path=PATH)
    return app


@socketio.on("typing")
def typing(nickname=None, *_):
    """Tell everybody else who is typing: whoever says so is believed, where Parley's own events ask for a token."""
    raise NotImplementedError("TODO 4: emit it to all but the one who has said it")
