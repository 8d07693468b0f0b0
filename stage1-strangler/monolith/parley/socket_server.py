"""The Socket.IO server: holds the connections of the browsers."""

from functools import partial

from engineio.async_drivers.gevent import WebSocketWSGI
from flask_socketio import SocketIO

# Engine.IO's own pings: who has vanished without closing is noticed after 15 s, or 20 s if nothing is pushed meanwhile.
# (Its defaults of 25 and 20 s would keep filling the buffers of a page that has gone for up to 65 s.)
PING_INTERVAL = 10  # seconds
PING_TIMEOUT = 5  # seconds

socketio = SocketIO()


def init_app(app):
    """Serve Socket.IO to pages of the same origin, and deliver what the message queue brings."""
    socketio.init_app(
        app,
        async_mode="gevent",
        client_manager=app.extensions["push"],
        ping_interval=PING_INTERVAL,
        ping_timeout=PING_TIMEOUT,
        max_http_buffer_size=app.config["MAX_CONTENT_LENGTH"],
    )
    # python-engineio 4 has no option for these two. It calls disconnect with a sid only.
    engine = socketio.server.eio
    engine._async["websocket"] = BoundedWebSocket
    engine.disconnect = partial(end_session, engine)


def end_session(engine, sid):
    """Forget a client that sent nonsense; Engine.IO's own would wait until it has fetched the news of its end."""
    if session := engine.sockets.pop(sid, None):
        session.close(wait=False, reason=engine.reason.SERVER_DISCONNECT)


class BoundedWebSocket(WebSocketWSGI):
    """A WebSocket that is closed as soon as a message is too large; Engine.IO would first take in all of it."""

    def __init__(self, handler, server):
        super().__init__(handler, server)
        self.server_args["max_message_size"] = server.max_http_buffer_size
