"""Work beside the requests: what an instance does again and again, and what a request starts once."""

import logging
import threading
import time

from flask import current_app, g

from .errors import explain
from .refusals import Refusal

log = logging.getLogger(__name__)


def every(app, seconds, task):
    """Have a task run so many seconds after its last end, once `start` is called."""
    app.extensions.setdefault("background", []).append((seconds, task))


def start(app):
    """Start the tasks, each in a thread of its own; under gunicorn's gevent worker, a thread is a greenlet."""
    for seconds, task in app.extensions.get("background", ()):
        threading.Thread(target=repeat, args=(app, seconds, task), name=task.__name__, daemon=True).start()


def repeat(app, seconds, task):
    """Run a task for ever; what it could not do is left to its next round, and to other instances.

    A failure that lasts is logged when it begins and when it is over, not at each round.
    """
    lasting = None  # the kind of error that the last round has raised
    while True:
        error = run(app, task, lasting=lasting)
        if lasting and not error:
            log.warning("%s works again.", task.__name__)
        lasting = type(error) if error else None
        time.sleep(seconds)


def soon(task):
    """Start a task once, beside the request: the answer neither waits for the task nor fails with it."""
    app, context = current_app._get_current_object(), {"request_id": g.get("request_id")}
    threading.Thread(target=run, args=(app, task), kwargs=context, name=task.__name__, daemon=True).start()


def run(app, task, *arguments, request_id=None, lasting=None):
    """Run a task within the application, for a request if it has an id.

    Return the error of a task that fails, and log it unless it is of the kind `lasting`.
    """
    with app.app_context():
        g.request_id = request_id
        try:
            task(*arguments)
        except Exception as error:
            if type(error) is not lasting:
                log_failure(task, error)
            return error


def log_failure(task, error):
    """Log why a task failed: in one line, or with a traceback if the error was not expected."""
    if isinstance(error, Refusal):
        log.warning("%s: %s", task.__name__, error)
    elif sentence := explain(error):
        log.warning("%s: %s (%s)", task.__name__, sentence, error)
    else:
        log.error("%s: unexpected error", task.__name__, exc_info=error)
