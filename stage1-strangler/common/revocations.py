"""The revoked tokens, in every service but tokens itself: a copy of its list, fetched anew every second.

While tokens does not answer, the last list applies: who is signed in goes on, and nobody can sign out meanwhile anyway.
The whole list, and not what has been added since: it is short, since a revocation is forgotten with its token, after an
hour at most; and "since" has no meaning among transactions that commit in another order than they began.
"""

from dataclasses import dataclass

from flask import current_app

from . import background, services

REFRESH_EVERY = 1  # second: with the time that a call takes, everybody refuses a revoked token within 2 s


@dataclass
class Revoked:
    """What the list says: single tokens, by jti, and of which users all tokens issued until when."""

    tokens: set[str]
    issued_until: dict[int, float]


def init_app(app):
    """Fetch the list again and again."""
    app.extensions["revoked"] = None
    background.every(app, REFRESH_EVERY, refresh)


def refresh():
    """Fetch the list; raises Unavailable and keeps the one there is."""
    rows = services.call("tokens", "GET", "/internal/tokens/revocations").json()["revocations"]
    issued_until = {}
    for row in rows:
        if row["user_id"] is not None:
            issued_until[row["user_id"]] = max(row["issued_until"], issued_until.get(row["user_id"], 0))
    current_app.extensions["revoked"] = Revoked({row["jti"] for row in rows if row["jti"]}, issued_until)


def is_revoked(claims):
    """Return whether a token with these claims is to be refused; raises Unavailable while no list is known at all."""
    if current_app.extensions["revoked"] is None:
        refresh()
    revoked = current_app.extensions["revoked"]
    return claims["jti"] in revoked.tokens or revoked.issued_until.get(claims["user_id"], 0) >= claims["iat"]
