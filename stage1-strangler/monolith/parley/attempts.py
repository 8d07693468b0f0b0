"""Attempts to sign in: how many are let through, counted over all instances in Redis.

An attempt counts before the password is checked, so that a hundred at once are no way around the limits, and is given
back if the password was right. While Redis is away, each instance counts for itself.
"""

import hashlib
import logging
import math
import time
from contextlib import contextmanager

from flask import current_app
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter
from redis.exceptions import RedisError

from common.redis_client import connect
from common.refusals import NotSignedIn, TooMany

log = logging.getLogger(__name__)

# A minute begins with its first attempt; so at the border of two there may be twice as many within seconds.
# What a stranger spends at an address of theirs does not lock the user out at another one.
PER_NICKNAME_AND_ADDRESS = RateLimitItemPerMinute(10, namespace="nickname-and-address")
PER_ADDRESS = RateLimitItemPerMinute(100, namespace="address")  # one password for many nicknames
PER_NICKNAME = RateLimitItemPerMinute(100, namespace="nickname")  # many passwords from many addresses


def init_app(app):
    """Connect to Redis, and keep something to count with while it is away."""
    url = app.config["REDIS_URL"]
    shared = RedisStorage(url, connect(url).connection_pool, key_prefix="attempts")
    app.extensions["attempts"] = FixedWindowRateLimiter(shared), FixedWindowRateLimiter(MemoryStorage())


@contextmanager
def counted(nickname, address):
    """Count an attempt if what is done within raises NotSignedIn; raises TooMany."""
    attempt, was_wrong = count(nickname, address), False
    try:
        yield
    except NotSignedIn:
        was_wrong = True
        raise
    finally:
        if not was_wrong:  # it was right, or the database was away
            give_back(attempt)


def count(nickname, address):
    """Count an attempt, and return it so that it can be given back; raises TooMany."""
    # Nicknames that nobody has count as well: being refused does not tell who exists. A hash has no odd characters
    # and one length.
    name = hashlib.sha256(nickname.encode()).hexdigest()
    wanted = [(PER_NICKNAME_AND_ADDRESS, name, address), (PER_ADDRESS, address), (PER_NICKNAME, name)]
    shared, own = current_app.extensions["attempts"]
    try:
        return spend(shared, wanted)
    except RedisError as error:
        log.warning("Attempts to sign in are counted by this instance alone: %s", error)
        return spend(own, wanted)


def spend(limiter, wanted):
    """Count in each of these limits, or in none of them; raises TooMany."""
    spent = []
    for limit in wanted:
        spent.append(limit)
        if not limiter.hit(*limit):
            give_back((limiter, spent))  # what is refused must not use up the limits of others
            seconds = max(1, math.ceil(limiter.get_window_stats(*limit).reset_time - time.time()))
            raise TooMany(f"Too many attempts to sign in. Please try again in {seconds} seconds.", seconds)
    return limiter, spent


def give_back(attempt):
    """Uncount an attempt: its password was not wrong."""
    limiter, spent = attempt
    try:
        for limit in spent:
            limiter.hit(*limit, cost=-1)
    except RedisError as error:
        log.warning("An attempt to sign in counts although it succeeded: %s", error)
