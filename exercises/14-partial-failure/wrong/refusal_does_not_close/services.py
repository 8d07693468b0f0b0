"""Calls of other services. Takes the place of common/services.py: bounded in time, and given up early.

    a GET, PUT or DELETE that broke off       → once more, at once: another instance may answer
    nobody there, no answer in time, 3 times  → the circuit opens: for a second, calls fail at once
    then one call is let through              → it succeeds, and the circuit closes; or it opens again

What the other service refuses is refused here, in its words; what it can't answer at all is 503.
"""

import logging
import time
from collections import defaultdict

import requests
from flask import current_app, g

from common.refusals import Declined, Unavailable

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 1  # second; loopback takes microseconds
READ_TIMEOUT = 4  # seconds: less than the load balancer's 4.5 s for the caller itself, so the caller says why
CONNECTIONS = 100  # kept open to the load balancer
OPEN_AFTER = 3  # failures in a row
OPEN_FOR = 1  # second
IDEMPOTENT = {"GET", "PUT", "DELETE"}
# The load balancer's answers, and ours, where there is none of an instance.
BROKE_OFF, TOO_LATE = 502, 504


def init_app(app):
    """Make the client: one pool of connections for all calls."""
    app.extensions["services"] = Client(app.config["INTERNAL_URL"])


def call(service, method, path, **options):
    """Call another service and return its answer (requests.Response), whose status is below 400.

    `repeatable` says that a POST may be sent twice, since it carries an idempotency key; other options are those of
    requests. Raises Unavailable when nobody answers, and Declined when the service refuses.
    """
    return current_app.extensions["services"].call(service, method, path, **options)


class Client:
    """Makes the calls, and keeps us from calling who does not answer."""

    def __init__(self, url):
        self.url = url
        self.circuits = defaultdict(Circuit)
        self.http = requests.Session()
        self.http.trust_env = False  # no proxy and no .netrc: looking for them takes longer than the call
        self.http.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=CONNECTIONS))

    def call(self, service, method, path, repeatable=None, headers=None, **options):
        """See `call` above."""
        circuit = self.circuits[service]
        if not circuit.lets_through():
            raise Unavailable(service)
        options["headers"] = {"X-Request-ID": g.get("request_id"), **(headers or {})}
        answer, status = self.send(method, path, **options)
        if answer is None and status == BROKE_OFF and (repeatable or method in IDEMPOTENT):
            answer, status = self.send(method, path, **options)
        if answer is None:
            log.warning("%s does not answer %s %s: %d", service, method, path, status)
            circuit.count_failure()
            raise Unavailable(service)
        if status >= 400:
            raise Declined(answer.json()["error"], status, answer.headers.get("Retry-After"))
        circuit.close()
        return answer

    def send(self, method, path, **options):
        """Return the answer of an instance, or None, and the status: TOO_LATE and BROKE_OFF are ours.

        Which instance has answered stands in X-Served-By: without it, the load balancer had to answer itself.
        """
        timeout = (CONNECT_TIMEOUT, READ_TIMEOUT)
        try:
            answer = self.http.request(method, self.url + path, timeout=timeout, allow_redirects=False, **options)
        except requests.Timeout:
            return None, TOO_LATE
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            return None, BROKE_OFF  # any other exception is about what we send: not the other service's failure
        return answer if "X-Served-By" in answer.headers else None, answer.status_code


class Circuit:
    """A circuit breaker for one service (M. Nygard, Release It!): closed, open, or letting one call through."""

    def __init__(self):
        self.failures = 0
        self.open_until = 0.0

    def lets_through(self):
        """Return whether a call may be made now; of an open circuit, one per OPEN_FOR."""
        now = time.monotonic()
        if self.failures >= OPEN_AFTER:
            if now < self.open_until:
                return False
            self.open_until = now + OPEN_FOR
        return True

    def count_failure(self):
        """Open after OPEN_AFTER failures in a row."""
        self.failures += 1
        self.open_until = time.monotonic() + OPEN_FOR

    def close(self):
        """The service answers, whatever it answers."""
        self.failures = 0
