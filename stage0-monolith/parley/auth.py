"""Who is calling: tokens are JWTs (RFC 7519), checked here, with nothing but the key and two adapters.

create_app says how to find out whether a token is revoked, and what to do when a user was seen.
"""

import uuid
from functools import wraps

import jwt
from flask import current_app, g, request

from .refusals import NotSignedIn

ALGORITHM = "HS256"
LIFETIME = 60 * 60  # seconds
REQUIRED_CLAIMS = ["user_id", "iat", "exp", "jti"]


def init_app(app, is_revoked, mark_seen):
    """Take the adapters: is_revoked(claims) -> bool, mark_seen(user_id)."""
    app.extensions["auth"] = {"is_revoked": is_revoked, "mark_seen": mark_seen}


def issue_token(user_id, issued_at):
    """Return a new token; issued_at keeps its fraction of a second, so that revoking has a sharp edge."""
    claims = {"user_id": user_id, "iat": issued_at, "exp": int(issued_at) + LIFETIME, "jti": uuid.uuid4().hex}
    return jwt.encode(claims, current_app.config["JWT_SECRET_KEY"], ALGORITHM)


def check_token(token):
    """Return the claims of a good token, whose user counts as seen; raises NotSignedIn."""
    try:
        claims = jwt.decode(
            token,
            current_app.config["JWT_SECRET_KEY"],
            algorithms=[ALGORITHM],  # never the one that the token asks for
            # iat is only for revoking: a clock that was set back must not sign everybody out.
            options={"require": REQUIRED_CLAIMS, "verify_iat": False},
        )
    except jwt.InvalidTokenError as error:
        raise NotSignedIn("The token is not valid or has expired. Please sign in again.") from error
    adapters = current_app.extensions["auth"]
    if adapters["is_revoked"](claims):
        raise NotSignedIn("The token was revoked. Please sign in again.")
    adapters["mark_seen"](claims["user_id"])
    return claims


def token_required(view):
    """Let only requests with a good token through; sets g.claims and g.user_id."""
    return _with_token(view, optional=False)


def token_optional(view):
    """Let anonymous requests through as well, but none with a bad token."""
    return _with_token(view, optional=True)


def _with_token(view, optional):
    @wraps(view)
    def checked(*args, **kwargs):
        g.claims = g.user_id = None
        if not (optional and "Authorization" not in request.headers):
            g.claims = check_token(bearer_token())
            g.user_id = g.claims["user_id"]
        return view(*args, **kwargs)

    return checked


def bearer_token():
    """Return the request's Bearer token (RFC 6750); raises NotSignedIn."""
    credentials = request.authorization
    if credentials is None or credentials.type != "bearer" or not credentials.token:
        raise NotSignedIn("This needs a token: Authorization: Bearer <token>.")
    return credentials.token


def basic_credentials():
    """Return the request's nickname and password (HTTP Basic, RFC 7617); raises NotSignedIn."""
    credentials = request.authorization
    if credentials is None or credentials.type != "basic":
        raise NotSignedIn("This needs your nickname and password: Authorization: Basic.")
    return credentials.username, credentials.password
