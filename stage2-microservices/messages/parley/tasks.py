"""Work in the background: in this process, beside the requests; what it does not finish, another instance will."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from flask import current_app, g
from sqlalchemy import delete

from common import background
from common.database import write_transaction
from common.errors import after_commit

from .models.message import DAY, IdempotencyKey

SWEEP_LINKS_EVERY = 1  # second
SWEEP_EXPIRED_EVERY = 60  # seconds


MAX_WAITING = 100  # messages; the sweep finds what does not fit, as it finds what a killed instance had queued

waiting = set()  # the ids of messages that are queued here, and not begun


@cache
def threads():
    """The threads that expand links: four messages at a time, as many as a Celery worker of the monolith takes on."""
    return ThreadPoolExecutor(max_workers=4, thread_name_prefix="expand")


@after_commit
def queue_expansion(message_id):
    """Have the links of a message expanded; once, however often the sweep finds the message while it waits."""
    if message_id in waiting or len(waiting) >= MAX_WAITING:
        return
    app, pool = current_app._get_current_object(), threads()
    waiting.add(message_id)
    pool.submit(background.run, app, expand_links, message_id, g.get("request_id"))


def expand_links(message_id, request_id):
    """Expand the links of a message."""
    waiting.discard(message_id)  # first: an edit from now on is queued again
    from . import links  # here, since it needs an HTML parser: an instance starts the faster without

    g.request_id = request_id
    links.expand(message_id)


def sweep_links():
    """Queue what is due: begun by an instance that died."""
    from . import links

    for message_id in links.find_due():
        queue_expansion(message_id)


def sweep_expired():
    """Delete idempotency keys older than a day."""
    with write_transaction() as session:
        session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < int(time.time()) - DAY))
