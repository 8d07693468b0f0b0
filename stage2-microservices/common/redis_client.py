"""The connection to Redis: an answer within half a second, or an error."""

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError
from redis.retry import Retry

TIMEOUT = 0.5
HEALTH_CHECK = 10  # seconds of silence after which a connection is checked before it is used again


def connect(url):
    """Return a client that gives up quickly, so that a request goes on without Redis."""
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=TIMEOUT,
        socket_timeout=TIMEOUT,
        health_check_interval=HEALTH_CHECK,
        # Once, at once: a pooled connection may be from before a restart of Redis.
        retry=Retry(NoBackoff(), retries=1, supported_errors=(ConnectionError,)),
    )


def explain(error):
    """Return the sentence for an error of Redis, or None for any other error."""
    return "Redis is away. Please try again in a moment." if isinstance(error, RedisError) else None
