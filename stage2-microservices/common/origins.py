"""Refuses requests of pages from elsewhere, which reach loopback through the browser that shows them.

A browser puts the origin of a page into the Origin header, and the name under which the page reached us into the Host
header. With DNS rebinding the two agree, but the name is the page's own. The load balancer checks the same. An instance
checks again, because a page can reach its port as well.
"""

import re

from flask import Flask, jsonify, make_response

FOREIGN_HOST = (
    "This server is not known by the name in the Host header. "
    "Use its address, or add the name with `./workshop up STAGE --host NAME`."
)
FOREIGN_ORIGIN = (
    "A page of another origin sent this request. "
    "Open the page at its own address; `./workshop up STAGE --host NAME` adds a name to that."
)


class SameOriginFlask(Flask):
    """A Flask application that its own pages can use, and programs that are no browser."""

    def __call__(self, environ, start_response):
        """Check a request before any middleware sees it: Socket.IO is one, and skips Flask's TRUSTED_HOSTS."""
        hosts = self.config["ALLOWED_HOSTS"]
        if not (refusal := problem(hosts, environ.get("HTTP_HOST"), environ.get("HTTP_ORIGIN"))):
            return super().__call__(environ, start_response)
        sentence, status = refusal
        with self.app_context():
            body = jsonify(error=sentence, request_id=environ.get("HTTP_X_REQUEST_ID"))
            return make_response(body, status)(environ, start_response)


def problem(hosts, host, origin):
    """Return the sentence and the status with which a request is refused; None for a good one.

    Without an origin, the request comes from a program such as curl. Without a host, it is HAProxy's health check.
    """
    authority = (host or "").lower()
    if host and re.sub(r":\d+$", "", authority) not in hosts:
        return FOREIGN_HOST, 421
    if origin and re.sub(r"^https?://", "", origin.lower()) != authority:
        return FOREIGN_ORIGIN, 403
    return None
