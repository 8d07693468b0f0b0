"""Presence: who is online, counted over all instances in Redis.

Each user has a sorted set there: the connections that have shown a token, each with the time at which the user may be
taken for gone if no other connection is left. Whether a user counts as online stands in the user's row.
"""

import logging
import time

from flask import current_app
from redis.exceptions import RedisError
from sqlalchemy import select, update

from common.database import db, time_of_change, write_transaction
from common.push import push_model
from common.redis_client import connect

from .models.user import User

log = logging.getLogger(__name__)

PING_LASTS = 60  # seconds; clients ping every 30 s, so that one ping may be lost
GRACE = 5  # seconds in which a reconnect is not seen
CLOCKS_DIFFER = 1  # second, at most, between the instances


def init_app(app):
    """Connect to Redis."""
    app.extensions["presence"] = connect(app.config["REDIS_URL"])


def ping(user_id, connection):
    """Count a connection of a user for the next minute; the user is online from now on."""
    now = time.time()
    try:
        with redis().pipeline() as pipeline:
            pipeline.zadd(key(user_id), {connection: now + PING_LASTS + GRACE})
            pipeline.zremrangebyscore(key(user_id), "-inf", now)
            pipeline.execute()
    except RedisError as error:
        log.warning("Connection of user %d not counted: %s", user_id, error)
    set_online(user_id, True)


def close(user_id, connection):
    """Stop counting a connection, after the grace; one that was forgotten by leave() stays forgotten."""
    try:
        redis().zadd(key(user_id), {connection: time.time() + GRACE}, xx=True)
    except RedisError as error:
        log.warning("Connection of user %d counts until its minute is over: %s", user_id, error)


def leave(user_id):
    """Forget all connections of a user, who is offline at once."""
    try:
        redis().delete(key(user_id))
    except RedisError as error:
        log.warning("Connections of user %d not forgotten: %s", user_id, error)
    set_online(user_id, False)


def sweep():
    """Mark users as offline whose last connection has ended."""
    online = dict(db.session.execute(select(User.id, User.last_seen_at).where(User.online)).all())
    for user_id in find_gone(online):
        redis().zremrangebyscore(key(user_id), "-inf", time.time())
        set_online(user_id, False)
        if not find_gone({user_id: 0}):  # a ping came in between, and found the user still online
            set_online(user_id, True)


def find_gone(last_seen):
    """Return which of these users (id: last_seen_at) have no connection left that counts."""
    now = time.time()
    with redis().pipeline() as pipeline:
        for user_id in last_seen:
            pipeline.zcard(key(user_id))
            # None lasts longer, unless the clock was set back: who is still there will ping within 30 s.
            pipeline.zcount(key(user_id), now, now + PING_LASTS + GRACE + CLOCKS_DIFFER)
        counts = pipeline.execute()
    gone = []
    for (user_id, last_seen_at), known, alive in zip(last_seen.items(), counts[::2], counts[1::2], strict=True):
        # Not known at all: Redis has lost its memory. Whoever still pings will be known again within a minute.
        forgotten = not known and now - PING_LASTS < last_seen_at <= now + CLOCKS_DIFFER
        if not alive and not forgotten:
            gone.append(user_id)
    return gone


def set_online(user_id, online):
    """Mark a user as online or offline, and push the user if that is a change."""
    db.session.rollback()  # an earlier read of this request may have seen the row before another instance changed it
    was_online = db.session.scalar(select(User.online).where(User.id == user_id))
    if was_online in (None, online):
        return
    with write_transaction() as session:
        changed = session.execute(
            update(User)
            .where(User.id == user_id, User.online != online)  # another instance may have been faster
            .values(online=online, updated_at=time_of_change(session, User))
        )
        user = session.get(User, user_id)
    if changed.rowcount:
        push_model(user)


def redis():
    """Return this application's connection."""
    return current_app.extensions["presence"]


def key(user_id):
    """Return the name of a user's sorted set."""
    return f"presence:{user_id}"
