"""The Celery entry point: celery --app parley.worker worker (or beat)."""

import logging

from celery.signals import setup_logging

from . import create_app

celery = create_app().extensions["celery"]


# Connected, this signal keeps Celery from setting up its own log: that of the application goes on.
@setup_logging.connect
def set_levels(**_):
    """Keep what is usual out of the log: two sweeps a second would fill it with their coming and going."""
    for name in ("celery.app.trace", "celery.worker.strategy", "celery.beat"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("celery.beat").addFilter(Brief())


class Brief(logging.Filter):
    """Leaves the first line of a message: while Redis is away, beat would write two tracebacks a second."""

    def filter(self, record):
        record.msg, record.args, record.exc_info = record.getMessage().partition("\n")[0], (), None
        return True
