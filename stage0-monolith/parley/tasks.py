"""Work in the background: Celery tasks, and the clock that starts the sweeps."""

import logging
import time

from celery import Celery, Task, shared_task
from flask import g, has_app_context
from kombu.exceptions import OperationalError
from sqlalchemy import delete

from . import presence
from .database import write_transaction
from .errors import after_commit
from .models.message import DAY, IdempotencyKey
from .models.revocation import Revocation

log = logging.getLogger(__name__)

SWEEP_PRESENCE_EVERY = 1  # second
SWEEP_LINKS_EVERY = 1  # second
SWEEP_EXPIRED_EVERY = 60  # seconds
EXPANSION_EXPIRES = 2  # seconds in the queue; then the sweep has queued the message again
# A request does not wait for Redis, nor try again (by default it would for 6 s): the sweep finds what was not queued.
BROKER_OPTIONS = {
    "socket_connect_timeout": 1,  # second
    "socket_timeout": 1,
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0,
}


def init_app(app):
    """Set up Celery; its tasks run within the application."""

    class AppTask(Task):
        def __call__(self, *args, **kwargs):
            with app.app_context():
                g.request_id = self.request.get("request_id")
                return self.run(*args, **kwargs)

    celery = Celery(app.name, task_cls=AppTask)
    celery.conf.update(
        broker_url=app.config["REDIS_URL"],
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker outlives any absence of Redis
        broker_transport_options=BROKER_OPTIONS,
        task_ignore_result=True,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,  # a worker that is killed takes little with it
        # expires: what nobody could do in time, the next round does. Without it, a worker would find a heap.
        beat_schedule={
            name: {"task": f"{__name__}.{name}", "schedule": seconds, "options": {"expires": max(5, seconds)}}
            for name, seconds in {
                "sweep_presence": SWEEP_PRESENCE_EVERY,
                "sweep_links": SWEEP_LINKS_EVERY,
                "sweep_expired": SWEEP_EXPIRED_EVERY,
            }.items()
        },
    )
    celery.set_default()
    app.extensions["celery"] = celery


@after_commit
def queue_expansion(message_id):
    """Ask a worker to expand the links of a message."""
    request_id = g.get("request_id") if has_app_context() else None
    try:
        expand_links.apply_async((message_id,), expires=EXPANSION_EXPIRES, headers={"request_id": request_id})
    except OperationalError as error:
        log.warning("Message %d not queued, the sweep will find it: %s", message_id, error)


@shared_task
def expand_links(message_id):
    """Expand the links of a message."""
    from . import links  # here, since a web instance needs no HTML parser and starts the faster without

    links.expand(message_id)


@shared_task
def sweep_links():
    """Queue what is due: not queued while Redis was away, or begun by a worker that died."""
    from . import links

    for message_id in links.find_due():
        queue_expansion(message_id)


@shared_task
def sweep_presence():
    """Mark users as offline whose last connection has ended."""
    presence.sweep()


@shared_task
def sweep_expired():
    """Delete revocations of tokens that have expired by now, and idempotency keys older than a day."""
    now = int(time.time())
    with write_transaction() as session:
        session.execute(delete(Revocation).where(Revocation.expires_at < now))
        session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now - DAY))
