"""Logging: one line per request, each line with the instance and the request it belongs to."""

import logging
import logging.config
import re
import time
import uuid

from flask import g, has_app_context, request

log = logging.getLogger(__name__)

WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
FORMAT = "%(asctime)s %(levelname)s %(instance)s %(request_id)s %(name)s: %(message)s"


def init_app(app):
    """Write the log to stderr, under gunicorn and Flask's command line alike."""
    settings = {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"context": {"()": Context, "instance": app.config["INSTANCE"]}},
        "formatters": {"line": {"format": FORMAT}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["context"]}},
        "root": {"level": "INFO", "handlers": ["stderr"]},
    }
    logging.config.dictConfig(settings)
    app.before_request(start_request)
    app.after_request(log_request)


class Context(logging.Filter):
    """Adds the instance and the request id to each record."""

    def __init__(self, instance):
        super().__init__()
        self.instance = instance

    def filter(self, record):
        record.instance = self.instance
        record.request_id = (g.get("request_id") if has_app_context() else None) or "-"
        return True


def start_request():
    """Take over the request id that the load balancer sent, or make one."""
    sent = request.headers.get("X-Request-ID", "")
    g.request_id = sent if WELL_FORMED_ID.fullmatch(sent) else uuid.uuid4().hex
    g.started = time.perf_counter()


def log_request(response):
    """Write the request's line; health checks, several a second, have none."""
    if request.path != "/healthz":
        log.info("%s %s %d %.1f ms", request.method, request.path, response.status_code, milliseconds())
    return response


def start_event():
    """Make an id for a Socket.IO event: the balancer knows only the connection that it came through."""
    g.request_id = uuid.uuid4().hex
    g.started = time.perf_counter()


def log_event(event, status):
    """Write the line of a Socket.IO event."""
    log.info("%s %d %.1f ms", event, status, milliseconds())


def milliseconds():
    """Return how long the request has taken so far."""
    return (time.perf_counter() - g.started) * 1000
