"""The one JSON shape of every failure: {"error": "<sentence>", "request_id": "…"}."""

import logging
from functools import wraps

from flask import current_app, g, jsonify, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import HTTPException

from . import refusals

log = logging.getLogger(__name__)

STATUS = {
    refusals.Invalid: 400,
    refusals.NotSignedIn: 401,
    refusals.Forbidden: 403,
    refusals.NotFound: 404,
    refusals.Taken: 409,
    refusals.KeyReused: 422,
    refusals.TooMany: 429,
    refusals.Overloaded: 503,
}
MOST_UNREAD = 1024 * 1024  # bytes of a body that nobody wants, and that are read nevertheless
SENTENCES = {
    404: "There is nothing at this address.",
    405: "This address does not answer that method.",
    413: "The request is too large.",
}


def init_app(app, *stores):
    """Answer every failure in the one shape; each of `stores` explains a failure of one: error -> sentence or None."""
    app.extensions["stores"] = stores
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(ParseException, answer_unreadable_body)
    app.register_error_handler(Exception, answer_exception)
    app.after_request(read_to_the_end)


def read_to_the_end(response):
    """Take in what was not read of the body: closing a connection before that resets it, and may destroy the answer."""
    length = request.content_length or 0
    if length <= MOST_UNREAD and request.environ.get("wsgi.input_terminated"):  # gunicorn knows where it ends
        try:
            request.environ["wsgi.input"].read(length)
        except OSError as error:  # also when less came than was announced: this client reads no answer any more
            log.info("The client left before its body was complete: %s", error)
            response.headers["Connection"] = "close"
    return response


def answer_http_error(error):
    """Answer an error of the framework: unknown path, wrong method, oversized body."""
    response = error.get_response()  # keeps headers such as Allow
    response.data = answer(SENTENCES.get(error.code, error.description)).data
    response.content_type = "application/json"
    return response


def answer_unreadable_body(error):
    """Answer a chunked body that breaks the rules of HTTP, which gunicorn notices only while the body is read."""
    log.info("The body can't be read: %s", error)
    response = answer("The body breaks the rules of chunked encoding. Send it with a Content-Length.")
    response.status_code = 400
    response.headers["Connection"] = "close"  # nobody knows where the next request begins
    return response


def answer_exception(error):
    """Answer a refusal, or an error that nobody expected."""
    sentence, status = describe(error)
    response = answer(sentence)
    response.status_code = status
    if status == 401:
        # Not Basic, also where a password is asked for: it would open the browser's own dialog.
        response.headers["WWW-Authenticate"] = 'Bearer realm="Authentication Required"'
    if retry_after := getattr(error, "retry_after", None):
        response.headers["Retry-After"] = retry_after
    return response


def answer(sentence):
    """Make the body."""
    return jsonify(error=sentence, request_id=g.get("request_id"))


def explain(error):
    """Return the sentence for a failure of a store, or None for any other error."""
    sentences = (explain_one(error) for explain_one in current_app.extensions["stores"])
    return next(filter(None, sentences), None)


def describe(error):
    """Return the sentence and the status that stand for an exception; log it if it is our fault."""
    if isinstance(error, refusals.Refusal):
        return str(error), STATUS[type(error)]
    if sentence := explain(error):
        log.error("A store did not do its work: %s", error)
        return sentence, 503
    log.exception("Unexpected error", exc_info=error)
    return "Something went wrong on our side. Please try again.", 500


def after_commit(function):
    """Decorate what follows a commit: a failure is logged, since the answer is about the write, which is stored."""

    @wraps(function)
    def guarded(*args):
        try:
            function(*args)
        except Exception as error:  # described, and logged there if nobody expected it
            log.warning("After the commit, %s failed: %s", function.__name__, describe(error)[0])

    return guarded
