"""What requests bring along: the JSON body and the values of the query."""

from flask import request

from .refusals import Invalid

MAX_ID = 2**31 - 1  # ids are 32 bits wide in PostgreSQL
MAX_TIME = 2**53  # beyond the life of the sun, and still exact in every language's numbers


def json_body():
    """Return the request's JSON object; raises Invalid."""
    try:
        body = request.get_json(silent=True)
    except RecursionError:
        body = None  # a thousand brackets
    request.stream.read(1)  # of a body without Content-Length, less was read than is allowed: at the limit it is 413
    if not isinstance(body, dict):
        raise Invalid("The body must be a JSON object, sent as Content-Type: application/json.")
    return body


def query_int(name, least, most, default=None):
    """Return a whole number of the query, or the default where there is none; raises Invalid."""
    value = request.args.get(name)
    return default if value is None else whole_number(name, value, least, most)


def query_ids(name, at_most):
    """Return the numbers of a comma-separated list, or None where there is none; raises Invalid."""
    value = request.args.get(name)
    if value is None:
        return None
    values = value.split(",")
    if len(values) > at_most:
        raise Invalid(f"{name} lists at most {at_most} numbers.")
    return [whole_number(name, value, 0, MAX_ID) for value in values]


def whole_number(name, value, least, most):
    """Return the text as a number within its limits; raises Invalid."""
    if not (value.isascii() and value.isdigit() and len(value) <= 16 and least <= int(value) <= most):
        raise Invalid(f"{name} must be a whole number from {least} to {most}.")
    return int(value)


def check_key(key):
    """Return the idempotency key, or None where there is none; raises Invalid."""
    if key is None:
        return None
    if not isinstance(key, str) or not 1 <= len(key) <= 128 or not (key.isascii() and key.isprintable()):
        raise Invalid("An idempotency key has 1 to 128 printable ASCII characters.")
    return key
