"""Lists in pages: rows by time of change, and with each page the link to the next one."""

import base64
import json
import re
from contextlib import closing
from urllib.parse import urlencode

from flask import request
from sqlalchemy import tuple_

from .database import db
from .parameters import MAX_ID, MAX_TIME, query_int, whole_number
from .refusals import Invalid

PAGE = 100  # rows on a page, unless the query says otherwise
MAX_PAGE = 500  # rows: some 10 ms of work and 120 KB for an answer
MAX_ANSWER = 512 * 1024  # bytes of rows in one answer: 500 messages of 1 KB, or 3 of the largest
ROWS_AT_ONCE = 20  # read from the database: 1 MB at most, whatever the limit is


def answer_page(name, query, time_of_change, tie_breaker):
    """Return one page of what a query selects: {name: [rows], "_links": {self, next}}; raises Invalid.

    Rows are ordered by their time of change, then by a unique column, because thousands may share a second. Without
    `updated_since`, the first page has the newest rows, and `next` leads to older ones. With it, the first page has the
    oldest rows since that time, and `next` leads to newer ones. On each page, the oldest change comes first.
    """
    limit = query_int("limit", 1, MAX_PAGE, default=PAGE)
    updated_since = query_int("updated_since", 0, MAX_TIME)
    order = tuple_(time_of_change, tie_breaker)
    if "cursor" in request.args:
        direction, position = read_cursor(request.args["cursor"], tie_breaker)
        query = query.where(order > position if direction == "after" else order < position)
    elif updated_since is not None:
        direction, query = "after", query.where(time_of_change >= updated_since)
    else:
        direction = "before"
    if direction == "after":
        query = query.order_by(time_of_change, tie_breaker)
    else:
        query = query.order_by(time_of_change.desc(), tie_breaker.desc())
    query = query.limit(limit + 1).execution_options(yield_per=ROWS_AT_ONCE)  # one more: is there a next page?
    shown, has_more = take(db.session.scalars(query), limit)
    links = {"self": request.full_path.rstrip("?")}
    if has_more:
        cursor = make_cursor(direction, shown[-1][time_of_change.key], shown[-1][tie_breaker.key])
        links["next"] = f"{request.path}?{urlencode({**request.args.to_dict(), 'cursor': cursor, 'limit': limit})}"
    if direction == "before":
        shown.reverse()
    return {name: shown, "_links": links}


def take(rows, limit):
    """Return as dicts what fits into one answer, at least one row and at most limit, and whether there are more."""
    shown, size = [], 0
    with closing(rows):
        for row in rows:
            model = row.to_dict()
            size += len(json.dumps(model))
            if len(shown) == limit or (shown and size > MAX_ANSWER):
                return shown, True
            shown.append(model)
    return shown, False


def make_cursor(direction, time, tie):
    """Return where the next page begins, as text that clients pass on unread."""
    return base64.urlsafe_b64encode(f"{direction}.{time}.{tie}".encode()).decode()


def read_cursor(cursor, tie_breaker):
    """Return the direction of a cursor and its position, (time, tie); raises Invalid."""
    try:
        text = base64.urlsafe_b64decode(cursor).decode()
    except ValueError as error:
        raise Invalid("The cursor is not one of ours.") from error
    match = re.fullmatch(r"(after|before)\.([0-9]+)\.([^\0]+)", text)  # PostgreSQL takes no NUL
    if not match:
        raise Invalid("The cursor is not one of ours.")
    direction, time, tie = match.groups()
    if tie_breaker.type.python_type is int:
        tie = whole_number("cursor", tie, 0, MAX_ID)
    return direction, (whole_number("cursor", time, 0, MAX_TIME), tie)
