"""Pushes to the browsers: over the Redis message queue, to every process that holds connections."""

import logging

from socketio import PubSubManager

from common.redis_client import connect

log = logging.getLogger(__name__)

CHANNEL = "flask-socketio"  # the name that Flask-SocketIO's own tools use
RECONNECT_AFTER = 1  # seconds; so pushes are back at most that long after Redis is
LISTEN_FOR = 10  # seconds until an idle listener wakes, and has the client check whether its connection still lives


def init_app(app):
    """Join the message queue."""
    app.extensions["push"] = MessageQueue(app.config["REDIS_URL"])


class MessageQueue(PubSubManager):
    """Socket.IO's publish and subscribe over Redis, back within a second after Redis was away.

    What is published while Redis is away is lost and logged: clients catch up through updated_since.
    """

    name = "redis"

    def __init__(self, url):
        super().__init__(channel=CHANNEL)
        self.redis = connect(url)

    def _publish(self, data):
        """Put an event into the channel, as JSON."""
        raise NotImplementedError("TODO 1: publish; when Redis is away, log it, since nobody who posts is to fail")

    def _listen(self):
        """Yield, for ever, what comes through the channel."""
        raise NotImplementedError("TODO 2: subscribe, and yield what comes; begin again when Redis was away")
