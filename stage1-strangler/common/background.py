"""Work beside the requests: what is to be done again and again, by each instance of a service."""

import logging
import threading
import time

from .errors import describe

log = logging.getLogger(__name__)


def every(app, seconds, task):
    """Have a task run so many seconds after its last end, once `start` is called."""
    app.extensions.setdefault("background", []).append((seconds, task))


def start(app):
    """Start the tasks, each in a thread of its own; under gunicorn's gevent worker, a thread is a greenlet."""
    for seconds, task in app.extensions.get("background", ()):
        threading.Thread(target=repeat, args=(app, seconds, task), name=task.__name__, daemon=True).start()


def repeat(app, seconds, task):
    """Run a task for ever; what it could not do is left to its next round, and to other instances."""
    while True:
        run(app, task)
        time.sleep(seconds)


def run(app, task, *arguments):
    """Run a task within the application; a failure is logged."""
    with app.app_context():
        try:
            task(*arguments)
        except Exception as error:  # described, and logged there if nobody expected it
            log.warning("%s: %s", task.__name__, describe(error)[0])
