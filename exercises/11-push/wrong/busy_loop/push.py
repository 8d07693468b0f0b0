"""Pushes to the browsers: over the Redis message queue, to every process that holds connections."""

import logging
import time

from redis.exceptions import RedisError
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
                message = pubsub.get_message()
                if message:
                    yield message["data"]
