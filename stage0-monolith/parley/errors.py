"""The one JSON shape of every failure: {"error": "<sentence>", "request_id": "…"}."""

import logging
import sqlite3

from flask import g, jsonify
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
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
}
SENTENCES = {
    404: "There is nothing at this address.",
    405: "This address does not answer that method.",
    413: "The request is too large.",
}
# What trying again would not change, by the error codes of SQLite and PostgreSQL.
DATABASE = {
    sqlite3.SQLITE_FULL: "The disk of the database is full. Nothing can be stored until there is room again.",
    "53100": "The disk of the database is full. Nothing can be stored until there is room again.",
    sqlite3.SQLITE_CORRUPT: "The database is damaged. It has to be restored.",
    sqlite3.SQLITE_NOTADB: "The database is damaged. It has to be restored.",
}


def init_app(app):
    """Answer every failure in the one shape."""
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(Exception, answer_exception)


def answer_http_error(error):
    """Answer an error of the framework: unknown path, wrong method, oversized body."""
    response = error.get_response()  # keeps headers such as Allow
    response.data = answer(SENTENCES.get(error.code, error.description)).data
    response.content_type = "application/json"
    return response


def answer_exception(error):
    """Answer a refusal, or an error that nobody expected."""
    sentence, status = describe(error)
    response = answer(sentence)
    response.status_code = status
    if status == 401:
        # Not Basic, also where a password is asked for: it would open the browser's own dialog.
        response.headers["WWW-Authenticate"] = 'Bearer realm="Authentication Required"'
    if status == 429:
        response.headers["Retry-After"] = error.retry_after
    return response


def answer(sentence):
    """Make the body."""
    return jsonify(error=sentence, request_id=g.get("request_id"))


def describe(error):
    """Return the sentence and the status that stand for an exception; log it if it is our fault."""
    if isinstance(error, refusals.Refusal):
        return str(error), STATUS[type(error)]
    # A damaged SQLite file raises the general DatabaseError; its other subclasses are our own mistakes.
    if isinstance(error, OperationalError | PoolTimeout) or type(error) is DatabaseError:
        log.error("The database did not do its work: %s", error)
        return DATABASE.get(database_code(error), "The database is busy or away. Please try again in a moment."), 503
    log.exception("Unexpected error", exc_info=error)
    return "Something went wrong on our side. Please try again.", 500


def database_code(error):
    """Return the error code of SQLite or PostgreSQL; None when the database was not even asked."""
    original = getattr(error, "orig", None)
    if hasattr(original, "sqlite_errorcode"):
        return original.sqlite_errorcode & 0xFF  # the rest of an extended code tells details
    return getattr(original, "sqlstate", None)
