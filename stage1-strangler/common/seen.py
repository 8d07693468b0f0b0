"""Who was seen, in every service but users itself: told to it once a second, for all users at once."""

import logging
from dataclasses import dataclass, field

from flask import current_app

from . import background, services
from .refusals import Declined, NotSignedIn, Unavailable

log = logging.getLogger(__name__)

TELL_EVERY = 1  # second


@dataclass
class Seen:
    """The users who are to be reported, and those of whom we know that they exist: nobody is ever deleted."""

    waiting: set[int] = field(default_factory=set)
    known: set[int] = field(default_factory=set)


def init_app(app):
    """Report again and again."""
    app.extensions["seen"] = Seen()
    background.every(app, TELL_EVERY, tell)


def mark_seen(user_id):
    """Note that a user was here; raises NotSignedIn for one that users does not know.

    Only the first time users is asked at once. If it does not answer, or can't, the token's signature is enough.
    """
    seen = current_app.extensions["seen"]
    seen.waiting.add(user_id)
    if user_id in seen.known:
        return
    try:
        tell()
    except (Declined, Unavailable) as error:
        log.warning("User %d taken for known: %s", user_id, error)
        return
    if user_id not in seen.known:
        raise NotSignedIn("The user of this token is not known. Please sign in again.")


def tell():
    """Report who is waiting to be; raises Unavailable, and they go on waiting."""
    seen = current_app.extensions["seen"]
    ids = list(seen.waiting)
    if not ids:
        return
    answer = services.call("users", "PUT", "/internal/users/seen", json={"ids": ids})
    seen.known.update(answer.json()["known"])
    seen.waiting.difference_update(ids)
