"""Pushes to the browsers: over Socket.IO here, over the Redis message queue to every other process."""

import logging
import time
from functools import partial

from engineio.async_drivers.gevent import WebSocketWSGI
from flask_socketio import SocketIO
from redis.exceptions import RedisError
from socketio import PubSubManager

from .redis_client import connect

log = logging.getLogger(__name__)

CHANNEL = "flask-socketio"  # the name that Flask-SocketIO's own tools use
RECONNECT_AFTER = 1  # seconds; so pushes are back at most that long after Redis is
# Engine.IO's own pings: who has vanished without closing is noticed after 15 s, or 20 s if nothing is pushed meanwhile.
# (Its defaults of 25 and 20 s would keep filling the buffers of a page that has gone for up to 65 s.)
PING_INTERVAL = 10  # seconds
PING_TIMEOUT = 5  # seconds
LISTEN_FOR = 10  # seconds until an idle listener wakes, and has the client check whether its connection still lives

socketio = SocketIO()


def init_app(app):
    """Serve Socket.IO to pages of the same origin, and join the message queue."""
    socketio.init_app(
        app,
        async_mode="gevent",
        client_manager=MessageQueue(app.config["REDIS_URL"]),
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


class MessageQueue(PubSubManager):
    """Socket.IO's publish and subscribe over Redis, back within a second after Redis was away.

    What is published while Redis is away is lost and logged: clients catch up through updated_since.
    """

    name = "redis"

    def __init__(self, url):
        super().__init__(channel=CHANNEL)
        self.redis = connect(url)

    def _publish(self, data):
        try:
            self.redis.publish(self.channel, self.json.dumps(data))
        except RedisError as error:
            log.warning("Not pushed to other instances: %s", error)

    def _listen(self):
        while True:
            try:
                yield from self._subscription()
            except RedisError as error:
                log.warning("The message queue is away, next try in %d s: %s", RECONNECT_AFTER, error)
                time.sleep(RECONNECT_AFTER)

    def _subscription(self):
        with self.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            pubsub.subscribe(self.channel)
            while True:
                message = pubsub.get_message(timeout=LISTEN_FOR)
                if message:
                    yield message["data"]


def push_model(model):
    """Tell every client about a new or changed model; call it after the commit, never before."""
    socketio.emit("updated_model", {"class": type(model).__name__, "model": model.to_dict()})
